"""Calls in both directions, without I/O: the procedures of this end and its pending calls.

Stamps, answers and the mapping of errors follow docs/wire.md section 4.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

from .entropy import new_token
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
from .events import Handler, check_handler, check_user_type, is_generator_callable

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

    @overload
    def register(self, name: str, fn: F, *, inline: bool = ...) -> F: ...
    @overload
    def register(self, name: str, fn: None = None, *, inline: bool = ...) -> Callable[[F], F]: ...
    def register(self, name: str, fn: F | None = None, *, inline: bool = False) -> Any:
        """Answer calls of ``name`` with what ``fn`` returns; a decorator when ``fn`` is left out.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with the arguments of a call, or is a
                generator function.
        """
        check_rpc_name(name)
        if fn is None:
            return lambda fn: self.register(name, fn, inline=inline)
        if is_generator_callable(fn):
            raise TypeError(
                f"the procedure {name!r}: generators are not supported as procedures yet; "
                "return a list"
            )
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
    """Refuse what cannot be the name of a procedure.

    Raises:
        ValueError: It is not a non-empty string, or it belongs to the library.
    """
    if name.__class__ is str and name and name[0] != "~":
        return  # fast path: nearly all names
    if not isinstance(name, str) or not name:
        hint = '; give it first, as in @register("add")' if callable(name) else ""
        raise ValueError(f"the name of a procedure is a non-empty string, not {name!r}{hint}")
    check_user_type(name, {}, "procedure")


class PendingCalls:
    """The calls of one connection that wait for their answers.

    A stamp is only valid on its own connection, so each connection has its own table.
    """

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[str, tuple[str, Resolve]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, stamp: object) -> bool:
        return stamp in self._calls

    def add(self, name: str, stamp: str, resolve: Resolve) -> None:
        """Wait for the answer with this stamp.

        Args:
            name: The procedure called.
            stamp: What `new_stamp` returned.
            resolve: Called once, with the result and None, or with None and the error.
        """
        self._calls[stamp] = (name, resolve)

    def resolve(self, stamp: Any, result: Any) -> bool:
        """The call succeeded. False if no call waits for that stamp, so that the answer is to be
        dropped (docs/wire.md 4)."""
        call = self._calls.pop(stamp, None) if isinstance(stamp, str) else None
        if call is None:
            return False
        call[1](result, None)
        return True

    def reject(self, stamp: Any, error: Any) -> bool:
        """The call failed: the other end answered with this error payload, of whatever form.
        False if no call waits for that stamp."""
        call = self._calls.pop(stamp, None) if isinstance(stamp, str) else None
        if call is None:
            return False
        call[1](None, error_from_payload(call[0], error))
        return True

    def forget(self, stamp: str) -> bool:
        """Stop waiting; a late answer will be dropped. False if the call has been answered."""
        return self._calls.pop(stamp, None) is not None

    def fail_all(self, code: int, reason: str) -> None:
        """The connection ended: fail every pending call with `RpcDisconnected`."""
        # Replace the table first: a call that `resolve` makes belongs to the next one. The copy
        # is for a thread that read the old table just before and is adding to it.
        calls, self._calls = self._calls, {}
        for name, resolve in list(calls.values()):
            resolve(None, disconnected_error(name, code, reason, sent=True))


def new_stamp(prefix: str = "") -> str:
    """A stamp that nobody can guess and that no other pending call has: ten characters of 40 random
    bits (among a thousand pending calls, two collide once in two million). Any thread."""
    return prefix + new_token()


def timeout_error(name: str, seconds: float) -> RpcTimeout:
    """What a call raises when its time-out expires."""
    return RpcTimeout(
        name,
        ErrorCode.RP_TIMEOUT,
        {"rpc": name, "timeout": seconds},
        f"no answer to the call of {name!r} within {seconds:g} s",
    )


def disconnected_error(name: str, code: int, reason: str, *, sent: bool) -> RpcDisconnected:
    """What a call raises when its connection ends (docs/wire.md 5)."""
    when = "before the answer came" if sent else "before the call was sent"
    why = f"{code} {reason}".strip()
    return RpcDisconnected(
        name,
        ErrorCode.RP_DISCONNECT,
        {"disconnected": [code, reason]},
        f"the connection ended ({why}) {when}: {name!r}",
        sent=sent,
    )


def error_from_payload(name: str, payload: Any) -> RpcError:
    """Read an error answer of any form, so that the caller always gets an error."""
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
    if code == ErrorCode.RP_NOT_REGISTERED:
        text = f"the other end has no procedure named {name!r}"
        return RpcNotRegistered(name, code, details, text)
    cause = _cause_in(fields.get("message"), details.get("origin")) or code
    return RpcFailed(name, code, details, f"{name!r} failed at the other end: {cause}")


def _cause_in(message: Any, origin: Any) -> str:
    """What failed at the other end, with the exception's type as a traceback's last line has it:
    ``KeyError: 'b'``. The text alone, which is all of ``str(KeyError("b"))``, says too little."""
    text = message if isinstance(message, str) else ""
    kind = origin.get("name") if isinstance(origin, dict) else None
    if not isinstance(kind, str) or not kind or text.startswith(kind):
        return text
    if not text or not origin.get("message", text):
        return kind
    return f"{kind}: {text}"


def payload_from_error(
    name: str, exc: BaseException, *, expose: bool, call_payload: Any = None
) -> dict[str, Any]:
    """The payload of an error answer (docs/wire.md 4).

    Args:
        name: The procedure that raised.
        exc: What it raised.
        expose: Also send the traceback and the call's own payload.
        call_payload: That payload.
    """
    details: dict[str, Any]
    # A procedure that lets the RpcNotRegistered of a nested call out does exist itself, so this
    # code, which says that the called one does not, must not be sent for it.
    if isinstance(exc, WseError) and exc.code != ErrorCode.RP_NOT_REGISTERED:
        details = dict(exc.details) if isinstance(exc.details, Mapping) else {}
        details.setdefault("rpc", name)
        answer: dict[str, Any] = {"code": str(exc.code), "details": details}
    else:
        details = {"origin": origin_of(exc), "rpc": name}
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
