"""The wire by hand, for servers that have no library for it: JSON of the standard library.

It does what the work needs and what nobody would leave out: strangers have to say hello, and a
call that fails gets an error. All minimal servers share it, so that only their WebSocket differs.
"""

from __future__ import annotations

import json
from typing import Any

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
decode = json.loads

MAX_SIZE = 10 * 1024 * 1024  # bytes of a message, as in this library
SUBPROTOCOL = "wse-default-json"
WELCOME = {"message": "Welcome!"}


def add(payload: dict[str, int]) -> int:
    """The procedure that is called most."""
    return payload["a"] + payload["b"]


PROCEDURES = {"add": add, "add-worker": add, "echo": lambda payload: payload}


def identify(identity: Any) -> bool:
    """Whether that user may come in."""
    return isinstance(identity, str) and identity.startswith("user-")


def welcome(type: str, payload: Any) -> tuple[str | None, str | None]:
    """Judge a stranger's first message: the user and what to answer, or two times None."""
    if type != "~wse:hi" or not identify(payload["identity"]):
        return None, None
    return payload["identity"], encode(("~wse:welcome", WELCOME, None))


def answer(name: str, payload: Any, stamp: str) -> str:
    """Serve a call."""
    procedure = PROCEDURES.get(name)
    if procedure is None:
        error: dict[str, Any] = {"code": "wse.server.rp.not-registered"}
        return encode(("~wse:response-err", error, stamp))
    try:
        return encode(("~wse:response", procedure(payload), stamp))
    except Exception as exc:
        error = {"code": "wse.server.rp.failed", "message": str(exc), "details": {"rpc": name}}
        return encode(("~wse:response-err", error, stamp))


def announcement(payload: Any) -> str:
    """What a broadcast sends."""
    return encode(("shout", payload, None))
