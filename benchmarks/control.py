"""The control channel, as the process under test sees it: lines of JSON on stdin and stdout.

It runs on a thread that sleeps in ``readline``, so it is the same for every framework and costs
nothing while something is measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from .cores import raise_file_limit

Command = Callable[..., Any]
SECONDS = 20  # for what is called on the loop


def cpu_seconds() -> float:
    """Processor time of this process so far, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_bytes() -> int:
    """Resident memory now (``ru_maxrss`` is the peak, and so of no use for a difference)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tidy_memory() -> int:
    """Resident bytes after the garbage is gone."""
    gc.collect()
    return resident_bytes()


COMMANDS: dict[str, Command] = {
    "cpu": cpu_seconds,
    "memory": tidy_memory,
    "resident": resident_bytes,
}


def report(**fields: Any) -> None:
    """One line to the process that started this one."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def obey(commands: dict[str, Command] | None = None) -> None:
    """Answer commands until the other end hangs up, then end the process at once."""
    known = {**COMMANDS, **(commands or {})}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            report(result=known[request.pop("do")](**request))
        except Exception as exc:
            report(error=f"{type(exc).__name__}: {exc}")
    os._exit(0)


def obey_beside(commands: dict[str, Command] | None = None) -> None:
    """`obey` on a thread of its own, for processes whose main thread serves."""
    threading.Thread(target=obey, args=(commands,), name="control", daemon=True).start()


def serve(
    start: Callable[[], Coroutine[Any, Any, int]],
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    commands: dict[str, Command] | None = None,
) -> None:
    """Be a server process: start, report the port, serve until told to end.

    Args:
        start: Opens the port on the running loop and returns it.
        run: ``asyncio.run``, ``uvloop.run`` or the like.
        commands: Further commands.
    """
    raise_file_limit()

    async def main() -> None:
        port = await start()  # which may add commands of the loop
        obey_beside({**(commands or {}), "tasks": on_loop(lambda: len(asyncio.all_tasks()))})
        report(port=port, loop=type(asyncio.get_running_loop()).__module__)
        await asyncio.Event().wait()

    run(main())


def on_loop(fn: Command) -> Command:
    """Make a command of something that belongs on the loop; call it there."""
    loop = asyncio.get_running_loop()

    def command(**arguments: Any) -> Any:
        async def call() -> Any:
            result = fn(**arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(call(), loop).result(SECONDS)

    return command
