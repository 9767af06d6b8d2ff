"""Fresh random values for stamps and masking keys, cut from blocks of the system's entropy.

One system call per value would cost more than packing a short message does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

__all__ = ["new_mask", "new_token"]

T = TypeVar("T")

_BLOCK = 1280  # bytes drawn at once: 320 masking keys, or 256 tokens


def _cut_masks(block: bytes) -> list[bytes]:
    return [block[i : i + 4] for i in range(0, len(block), 4)]


def _cut_tokens(block: bytes) -> list[str]:
    text = block.hex()
    return [text[i : i + 10] for i in range(0, len(text), 10)]


def _cached(cut: Callable[[bytes], list[T]]) -> Callable[[], T]:
    """A function that returns a fresh value at each call, in any thread.

    A closure, because calling one is cheaper than calling an object. ``pop`` and ``extend`` of a
    list are atomic, so two threads never get the same value; two that find the list empty both
    draw a block, and both blocks are used.
    """
    fresh: list[T] = []
    pop = fresh.pop

    def draw() -> T:
        while True:
            try:
                return pop()
            except IndexError:
                fresh.extend(cut(os.urandom(_BLOCK)))

    # A forked child must not repeat the values of its parent.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=fresh.clear)
    return draw


new_mask = _cached(_cut_masks)
"""Four random bytes, the masking key of one frame (RFC 6455 5.3)."""

new_token = _cached(_cut_tokens)
"""Ten hexadecimal characters of 40 random bits, which nobody can guess."""
