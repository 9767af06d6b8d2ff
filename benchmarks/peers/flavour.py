"""The one place where ``[fast]`` and plain differ.

Plain is a process in which neither uvloop nor msgspec can be imported, which is what a user
without the extra has. Call `choose` before anything imports the library.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

ACCELERATORS = ("uvloop", "msgspec")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def choose(arguments: list[str]) -> Run:
    """Set the process up as its command line says: ``fast`` or ``plain``.

    Returns:
        What runs the main coroutine.
    """
    if arguments[1:] == ["fast"]:
        import uvloop

        return uvloop.run  # type: ignore[no-any-return]
    if arguments[1:] == ["plain"]:
        for name in ACCELERATORS:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it fails from now on
        return asyncio.run
    raise SystemExit(f"usage: {arguments[0]} fast|plain")
