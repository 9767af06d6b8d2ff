"""What the library's own tests need beside `wse_tornado.testing`: raw peers, servers and clients
of both flavours behind one face, leak checks."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from .clients import NEVER, QUICK, Used, beside, outcome, use
from .leaks import open_sockets, wait_until
from .peer import Closed, RawPeer, RawServer, let_in, nothing_sent, stay
from .servers import FLAVOURS, Served, accept_all, serve
from .timing import seconds

__all__ = [
    "FLAVOURS",
    "NEVER",
    "QUICK",
    "ROOT",
    "Closed",
    "RawPeer",
    "RawServer",
    "Served",
    "Used",
    "accept_all",
    "beside",
    "let_in",
    "nothing_sent",
    "open_sockets",
    "outcome",
    "require",
    "seconds",
    "serve",
    "stable",
    "stay",
    "use",
    "wait_until",
]

ROOT = Path(__file__).resolve().parents[2]


def require(present: object, what: str) -> None:
    """Skip where something is absent; in CI nothing may be."""
    if present:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} is absent, and CI must have it")
    pytest.skip(f"{what} is absent")


def stable(value: Any) -> str:
    """A test's id that every process gives it: no address."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
