"""What all clients under test do: call ``add`` and time it, from one thread or from several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..control import cpu_seconds, obey, report

Call = Callable[[], Any]
clock = time.perf_counter
EXPECTED = 8
ARGUMENT = {"a": 5, "b": 3}


def run(call: Call, *, threads: int, seconds: float) -> dict[str, Any]:
    """Call in a loop on each thread until the time is over.

    Returns:
        ``operations``, ``seconds``, ``cpu`` (seconds) and ``waits`` (seconds, each call's).
    """
    if call() != EXPECTED:
        raise ValueError(f"add answered {call()!r}")
    waits: list[list[float]] = [[] for _ in range(threads)]
    failures: list[BaseException] = []
    end = 0.0
    go = threading.Event()

    def loop(mine: list[float]) -> None:
        try:
            go.wait()
            asked = clock()
            while asked < end:
                if call() != EXPECTED:
                    raise ValueError("add answered something else")
                answered = clock()
                mine.append(answered - asked)
                asked = answered
        except BaseException as exc:
            failures.append(exc)

    # A single caller is the script's main thread itself.
    others = [threading.Thread(target=loop, args=(mine,)) for mine in waits[1:]]
    for thread in others:
        thread.start()
    cpu, start = cpu_seconds(), clock()
    end = start + seconds
    go.set()
    loop(waits[0])
    for thread in others:
        thread.join()
    spent, lasted = cpu_seconds() - cpu, clock() - start
    if failures:
        raise failures[0]
    together = [wait for mine in waits for wait in mine]
    return {"operations": len(together), "seconds": lasted, "cpu": spent, "waits": together}


def serve_commands(call: Call) -> None:
    """Be a client process: connected, and ready to be told."""
    report(connected=True)
    obey({"calls": lambda threads, seconds: run(call, threads=threads, seconds=seconds)})
