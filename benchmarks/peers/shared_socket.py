"""Calls of several threads on one blocking WebSocket, as one writes it for a library without
calls: a lock around sending, a thread that reads, and a slot for each call by its stamp."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from .caller import ARGUMENT
from .minimal import decode, encode


def plain_call(send: Callable[[str], Any], receive: Callable[[], str | bytes]) -> Any:
    """One call from a script that has the socket to itself."""
    stamp = "Zk3vQ0aPq1"
    send(encode(("add", ARGUMENT, stamp)))
    type, payload, answered = decode(receive())
    if type != "~wse:response" or answered != stamp:
        raise ValueError(f"not the answer: {type!r}")
    return payload


class SharedSocket:
    """The same for several threads."""

    def __init__(self, send: Callable[[str], Any], receive: Callable[[], str | bytes]) -> None:
        self._send = send
        self._receive = receive
        self._lock = threading.Lock()
        self._slots: dict[str, queue.SimpleQueue[Any]] = {}
        self._numbers = count()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            _type, payload, stamp = decode(self._receive())
            self._slots.pop(stamp).put(payload)

    def call(self) -> Any:
        slot: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stamp = f"{next(self._numbers):010}"
        self._slots[stamp] = slot
        text = encode(("add", ARGUMENT, stamp))
        with self._lock:
            self._send(text)
        return slot.get(timeout=20)
