"""The cache of random values: fresh in every thread and in every process."""

import os
import re
import sys
import threading

import pytest

from wse_tornado.entropy import new_mask, new_token


def test_tokens_are_ten_hexadecimal_characters_that_do_not_repeat() -> None:
    tokens = [new_token() for _ in range(10_000)]
    assert len(set(tokens)) == 10_000
    assert all(re.fullmatch("[0-9a-f]{10}", token) for token in tokens)
    # Every position takes every value: none is a constant of the cutting.
    assert all(len({token[i] for token in tokens}) == 16 for i in range(10))


def test_masks_are_four_bytes_that_do_not_repeat() -> None:
    masks = [new_mask() for _ in range(1000)]
    assert all(len(mask) == 4 for mask in masks)
    assert len(set(masks)) > 990  # 2**32 values: two of a thousand may collide


def test_threads_never_share_a_value() -> None:
    drawn: list[str] = []

    def draw() -> None:
        drawn.extend([new_token() for _ in range(3000)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=draw) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(set(drawn)) == len(drawn) == 12_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_repeat_the_values_of_its_parent() -> None:
    new_token()  # the cache is not empty
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_token().encode() + new_mask().hex().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read().decode()
    os.waitpid(child, 0)
    assert new_token() + new_mask().hex() != theirs
    assert not theirs.startswith(new_token())
