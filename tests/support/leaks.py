"""What a test must not leave behind."""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from .timing import seconds


def wait_until(condition: Callable[[], object], within: float = 5.0, what: str = "") -> None:
    """Wait for something that has no event to wait for. Fails the test if it does not come."""
    deadline = time.monotonic() + seconds(within)
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or condition}")
        time.sleep(0.005)


def open_sockets() -> set[str]:
    """The sockets this process holds, by inode; empty where /proc is missing."""
    found = set()
    try:
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(target)
    except FileNotFoundError:
        pass
    return found


def library_threads() -> list[threading.Thread]:
    """Threads of the library that run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("wse-tornado")]


def stacks(threads: list[threading.Thread]) -> str:
    """What they are doing."""
    frames = sys._current_frames()
    parts = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else "(ended)"
        parts.append(f"--- {thread.name}\n{stack}")
    return "\n".join(parts)
