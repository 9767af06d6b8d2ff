"""Calls in both directions, without I/O: procedures of this end, pending calls to the other.

Stamps, answers and the mapping of errors are those of WIRE.md section 4.
"""

from __future__ import annotations

import secrets
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .errors import (
    ErrorCode,
    RpcDisconnected,
    RpcError,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WseError,
    origin_of,
    text_of,
)
from .events import Handler, check_handler, check_user_type

__all__ = ["PendingCalls", "Procedures"]

F = TypeVar("F", bound=Callable[..., Any])
Resolve = Callable[[Any, "WseError | None"], None]


class Procedures(Mapping[str, Handler]):
    """The procedures of one end, by name. Registering is safe from any thread.

    Attributes:
        by_name: The procedures, to look up for each call. Changed by `register` only.
    """

    def __init__(self, params: tuple[str, ...], *, inline: bool = False) -> None:
        self._params = params
        self._inline = inline
        self.by_name: dict[str, Handler] = {}
        self._lock = threading.Lock()

    def register(self, name: str, fn: F | None = None, *, inline: bool = False) -> Any:
        """Answer calls of ``name`` with what ``fn`` returns; a decorator when ``fn`` is left out.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with what it will be given.
        """
        check_rpc_name(name)
        if fn is None:
            return lambda fn: self.register(name, fn, inline=inline)
        check_handler(fn, self._params, f"the procedure {name!r}")
        with self._lock:
            if name in self.by_name:
                raise WseError(
                    ErrorCode.RP_ALREADY_REGISTERED,
                    {"rpc": name},
                    f"a procedure named {name!r} is registered already; unregister it first",
                )
            self.by_name[name] = Handler(fn, inline=inline or self._inline)
        return fn

    def unregister(self, name: str) -> None:
        """Forget the procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        with self._lock:
            if self.by_name.pop(name, None) is None:
                raise WseError(
                    ErrorCode.RP_NOT_REGISTERED,
                    {"rpc": name},
                    f"no procedure named {name!r} is registered",
                )

    def __getitem__(self, name: str) -> Handler:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.by_name))

    def __len__(self) -> int:
        return len(self.by_name)


def check_rpc_name(name: Any) -> None:
    """Refuse a name that cannot be a procedure's.

    Raises:
        ValueError: It is not a non-empty string, or it belongs to the library.
    """
    if name.__class__ is str and name and name[0] != "~":
        return  # what nearly all names are
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of a procedure is a non-empty string, not {name!r}")
    check_user_type(name, {}, "procedure")


class PendingCalls:
    """Calls of one connection that wait for their answers.

    A stamp means something on its own connection only, so each connection has its own table.
    """

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[str, tuple[str, Resolve]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, stamp: object) -> bool:
        return stamp in self._calls

    def add(self, rpc: str, stamp: str, resolve: Resolve) -> None:
        """Wait for the answer with this stamp.

        Args:
            rpc: The procedure called.
            stamp: What `new_stamp` made.
            resolve: Called once, with the result and None, or with None and the error.
        """
        self._calls[stamp] = (rpc, resolve)

    def resolve(self, stamp: Any, result: Any) -> bool:
        """The call succeeded. False if nobody waits for that stamp (WIRE.md 4: drop it)."""
        call = self._calls.pop(stamp, None) if isinstance(stamp, str) else None
        if call is None:
            return False
        call[1](result, None)
        return True

    def reject(self, stamp: Any, error: Any) -> bool:
        """The other end answered with an error payload, whatever its form."""
        call = self._calls.pop(stamp, None) if isinstance(stamp, str) else None
        if call is None:
            return False
        call[1](None, error_from_payload(call[0], error))
        return True

    def forget(self, stamp: str) -> bool:
        """Nobody waits any more; a late answer will be dropped. False if it was answered."""
        return self._calls.pop(stamp, None) is not None

    def fail_all(self, code: int, reason: str) -> None:
        """The connection ended: every waiter gets `RpcDisconnected` now."""
        calls, self._calls = self._calls, {}
        for rpc, resolve in list(calls.values()):  # another thread may be adding
            resolve(None, disconnected_error(rpc, code, reason, sent=True))


class _Stamps:
    """Stamps, drawn from the system's entropy in blocks."""

    __slots__ = ("_fresh",)

    def __init__(self) -> None:
        self._fresh: list[str] = []

    def __call__(self, prefix: str = "") -> str:
        """A stamp nobody can guess, and that two calls do not share: ten characters of 40 random
        bits (a thousand calls in flight collide once in two million). Any thread."""
        while True:
            try:
                return prefix + self._fresh.pop()
            except IndexError:
                block = secrets.token_hex(5 * 64)
                self._fresh.extend(block[i : i + 10] for i in range(0, 640, 10))


new_stamp = _Stamps()


def timeout_error(rpc: str, seconds: float) -> RpcTimeout:
    """What a call raises when its time is over."""
    return RpcTimeout(
        rpc,
        ErrorCode.RP_TIMEOUT,
        {"rpc": rpc, "timeout": seconds},
        f"no answer to the call of {rpc!r} within {seconds:g} s",
    )


def disconnected_error(rpc: str, code: int, reason: str, *, sent: bool) -> RpcDisconnected:
    """What a call raises when its connection ends (WIRE.md 5)."""
    tail = "before the answer came" if sent else "before the call was sent"
    why = f"{code} {reason}".strip()
    return RpcDisconnected(
        rpc,
        ErrorCode.RP_DISCONNECT,
        {"disconnected": [code, reason]},
        f"the connection ended ({why}) {tail}: {rpc!r}",
        sent=sent,
    )


def error_from_payload(rpc: str, payload: Any) -> RpcError:
    """Read an error answer, however odd, so that the caller always gets an error."""
    fields: dict[str, Any] = payload if isinstance(payload, dict) else {}
    code = fields.get("code")
    if not isinstance(code, str) or not code:
        code = str(ErrorCode.RP_EXECUTION_FAILED)
    given = fields.get("details")
    if isinstance(given, dict):
        details = dict(given)
    else:
        details = {} if given is None else {"details": given}
    if payload is not None and not isinstance(payload, dict):
        details["answer"] = payload
    for key, value in fields.items():
        if key not in ("code", "details", "message"):
            details.setdefault(key, value)
    text = fields.get("message")
    if code == ErrorCode.RP_NOT_REGISTERED:
        return RpcNotRegistered(rpc, code, details, f"the other end has no procedure named {rpc!r}")
    if isinstance(text, str) and text:
        return RpcFailed(rpc, code, details, f"{rpc!r} failed at the other end: {text}")
    return RpcFailed(rpc, code, details, f"{rpc!r} failed at the other end: {code}")


def payload_from_error(
    rpc: str, exc: BaseException, *, expose: bool, call_payload: Any = None
) -> dict[str, Any]:
    """The payload of an error answer (WIRE.md 4).

    Args:
        rpc: The procedure that raised.
        exc: What it raised.
        expose: Also tell the stack and the call's own payload.
        call_payload: That payload.
    """
    details: dict[str, Any]
    if isinstance(exc, WseError):
        details = {**exc.details}
        details.setdefault("rpc", rpc)
        answer: dict[str, Any] = {"code": exc.code, "details": details}
    else:
        details = {"origin": origin_of(exc), "rpc": rpc}
        answer = {
            "code": str(ErrorCode.RP_EXECUTION_FAILED),
            "message": text_of(exc) or "Unexpected error",
            "details": details,
        }
    if expose:
        stack = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        origin = details.setdefault("origin", origin_of(exc))
        if isinstance(origin, dict):
            origin.setdefault("stack", stack)
        details.setdefault("payload", call_payload)
    return answer
