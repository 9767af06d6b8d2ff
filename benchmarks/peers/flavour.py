"""The one place where ``[fast]``, plain, and another checkout of the library differ.

Plain is a process in which neither uvloop nor msgspec can be imported, which is what a user
without the extra has. Call `choose` before anything imports the library.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

ACCELERATORS = ("uvloop", "msgspec")
BEFORE = "BENCHMARKS_BEFORE"  # environment: the checkout that "before-fast", "before-plain" import
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def choose(flavour: str) -> Run:
    """Set the process up as ``fast``, ``plain``, ``before-fast`` or ``before-plain``.

    Returns:
        What runs the main coroutine.
    """
    if flavour.startswith("before-"):
        # In front of the current directory, which `python -m` puts before PYTHONPATH.
        checkout = Path(os.environ[BEFORE]).resolve()
        sys.path.insert(0, str(checkout))
        found = importlib.util.find_spec("wse_tornado")
        if found is None or not Path(str(found.origin)).is_relative_to(checkout):
            raise SystemExit(f"no wse_tornado in {checkout}")
    if flavour.endswith("fast"):
        import uvloop

        return uvloop.run  # type: ignore[no-any-return]
    for name in ACCELERATORS:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it fails from now on
    return asyncio.run
