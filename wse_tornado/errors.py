"""Every error, code, close reason and status of the library, and how errors travel.

This module knows names and data only: it does no I/O and imports nothing of the library.

    WseError
    ├── RpcError                        a call failed; .name is the procedure's
    │   ├── RpcTimeout                  also TimeoutError
    │   ├── RpcNotRegistered            also LookupError
    │   ├── RpcDisconnected             also ConnectionError; .sent
    │   └── RpcFailed                   the other end raised; its code and details
    ├── NotAuthorized                   also PermissionError
    ├── ConnectTimeout                  also TimeoutError
    ├── ConnectionFailed                also ConnectionError
    ├── ConnectionNotReady              also ConnectionError
    ├── ReceiveTimeout                  also TimeoutError
    ├── SendTimeout                     also TimeoutError
    ├── WaitTimeout                     also TimeoutError
    ├── AlreadyConnected
    ├── ProtocolError
    ├── NotSerializable                 also TypeError
    └── WrongThread                     also RuntimeError
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any, TypeVar

__all__ = [
    "AlreadyConnected",
    "CloseCode",
    "ConnectTimeout",
    "ConnectionFailed",
    "ConnectionNotReady",
    "ErrorCode",
    "NotAuthorized",
    "NotSerializable",
    "ProtocolError",
    "Reason",
    "ReceiveTimeout",
    "RpcDisconnected",
    "RpcError",
    "RpcFailed",
    "RpcNotRegistered",
    "RpcTimeout",
    "SendTimeout",
    "Status",
    "WSE_ERROR",
    "WSE_REASON",
    "WSE_STATUS",
    "WaitTimeout",
    "WrongThread",
    "WseError",
]


class _Name(str, Enum):
    """A string with a name: it compares, hashes, prints and packs as its value."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]  # f"{member}" is the value on 3.10 too

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class CloseCode(IntEnum):
    """Why a WebSocket was closed, as a number: ``if code == CloseCode.SERVICE_RESTART``.

    The codes of RFC 6455 7.4.1 and its IANA registry, and the one of the wire (docs/wire.md 5).
    NO_STATUS_RCVD and ABNORMAL_CLOSURE are never sent; they are what an end without a code is
    told as.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014

    JUMP = 4000
    """The client moves to another server."""

    __str__ = int.__repr__
    __format__ = int.__format__  # type: ignore[assignment]  # the number on Python 3.10, too

    def __repr__(self) -> str:
        return f"CloseCode.{self.name}"


class ErrorCode(_Name):
    """What went wrong, by name: ``error.code == ErrorCode.RP_TIMEOUT``.

    First the codes that all peers share (docs/wire.md 7), then those that this library adds.
    """

    INVALID_CRA_HANDLER = "wse.client.invalid-cra-handler"
    RP_TIMEOUT = "wse.client.rp.timeout"
    RP_DISCONNECT = "wse.client.rp.disconnect"
    CLIENT_ALREADY_CONNECTED = "wse.client.already-connected"
    WS_CLIENT_ERROR = "wse.client.ws-error"
    NOT_AUTHORIZED = "wse.not-authorized"
    CONNECTION_NOT_READY = "wse.client.not-ready"
    NO_CLIENT_CONNECTION = "wse.server.client.connection-missing"
    IDENTIFY_HANDLER_MISSING = "wse.server.auth.identify-handler-missing"
    INVALID_CRA_GENERATOR = "wse.server.auth.invalid-cra-generator"
    RP_EXECUTION_FAILED = "wse.server.rp.failed"
    RP_NOT_REGISTERED = "wse.server.rp.not-registered"
    RP_ALREADY_REGISTERED = "wse.server.rp.already-registered"
    PROTOCOL_VIOLATION = "wse.server.protocol-violation"
    CONNECTION_ERROR = "wse.server.connection-error"
    MESSAGE_PROCESSING_ERROR = "wse.server.msg-processing-error"

    CONNECT_TIMEOUT = "wse.client.connect-timeout"
    RECEIVE_TIMEOUT = "wse.client.receive-timeout"
    NOT_SERIALIZABLE = "wse.not-serializable"
    HANDLER_FAILED = "wse.handler-failed"
    WRONG_THREAD = "wse.wrong-thread"
    WORKERS_EXHAUSTED = "wse.workers-exhausted"
    SEND_BUFFER_FULL = "wse.client.send-buffer-full"
    TIMEOUT = "wse.timeout"
    AUTH_TIMEOUT = "wse.auth-timeout"
    TOO_MANY_CALLS = "wse.too-many-calls"
    NOT_DELIVERED = "wse.not-delivered"
    INBOX_OVERFLOW = "wse.client.inbox-overflow"


class Reason(_Name):
    """Why a connection was closed, as ``closed``, ``left`` and ``disconnected`` report it.

    First the reasons that all peers share (docs/wire.md 5), then those that this library adds.
    A server may close with any other text.
    """

    BY_CLIENT = "wse.by-client"
    BY_SERVER = "wse.by-server"
    NOT_AUTHORIZED = "wse.not-authorized"
    PROTOCOL_ERR = "wse.protocol-error"
    CLIENTS_CONCURRENCY = "wse.clients-concurrency"
    JUMP = "jump"
    NO_REASON = ""

    SLOW_CONSUMER = "wse.slow-consumer"
    SERVER_STOPPING = "wse.server-stopping"
    SERVER_FULL = "wse.server-full"
    AUTH_TIMEOUT = "wse.auth-timeout"
    HEARTBEAT = "wse.heartbeat-timeout"
    RATE_LIMIT = "wse.rate-limit"
    QUEUE_OVERFLOW = "wse.queue-overflow"


class Status(_Name):
    """What a client is doing (docs/wire.md 7).

    IDLE: not connected yet. CONNECTING: connecting for the first time. READY: accepted by the
    server. OFFLINE: closed, refused or lost, and not reconnecting. RE_CONNECTING: the connection
    was lost and the client is reconnecting.
    """

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    READY = "READY"
    OFFLINE = "OFFLINE"
    RE_CONNECTING = "RE_CONNECTING"


WSE_ERROR = ErrorCode
WSE_REASON = Reason
WSE_STATUS = Status


E = TypeVar("E", bound="WseError")


class WseError(Exception):
    """The root of all errors of this library, and what a procedure raises to answer with a code.

    ``str(error)`` is one printable line of at most 1,000 characters, whatever the peer wrote;
    ``error.message`` is the unchanged text.

    Args:
        code: A stable name for the problem, such as ``"shop.sold-out"``.
        details: Further keys. They are sent to the other end when a procedure raises the error.
        message: One readable sentence; built from code and details when left out.
    """

    default_code: str = ErrorCode.WS_CLIENT_ERROR

    code: str
    details: dict[str, Any]
    message: str

    def __new__(cls: type[E], *args: Any, **kwargs: Any) -> E:
        # Without arguments: from two or more, the OSErrors of the tree would read errno and
        # strerror. The attributes are set here, so that a subclass whose __init__ does not call
        # this class's is a complete error, too.
        self = super().__new__(cls)
        self.args = args
        self.code = self.message = str(cls.default_code)
        self.details = {}
        return self

    def __init__(
        self,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        if code is not None:
            self.code = str(code)
        if details is not None:
            self.details = dict(details)
        self.message = message if message is not None else self._describe()
        # One argument, for the same reason.
        self.args = (self.message,)

    def _describe(self) -> str:
        if not self.details:
            return self.code
        inner = ", ".join(f"{key}={repr_of(value)}" for key, value in self.details.items())
        return f"{self.code} ({inner})"

    def to_json(self) -> dict[str, Any]:
        """The error as a dictionary of ``code``, ``message`` and ``details``, for an HTTP answer
        or a structured log. The values of ``details`` are those of the error, unchanged."""
        return {"code": str(self.code), "message": str(self), "details": dict(self.details or {})}

    def __str__(self) -> str:
        return printable(" ".join(str(self.message).split()), MAX_ERROR_TEXT)

    def __repr__(self) -> str:
        text = f"{type(self).__name__}(code={self.code!r}, details={repr_of(self.details)})"
        return printable(text, MAX_ERROR_TEXT)

    def __reduce__(self) -> tuple[Any, ...]:
        # The builtin bases disagree about arguments; rebuild from the state instead, so that
        # errors cross process pools.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[WseError], args: tuple[Any, ...], state: dict[str, Any]) -> WseError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class RpcError(WseError):
    """A call failed.

    Attributes:
        name: The name of the procedure; also readable as ``rpc``.
    """

    default_code = ErrorCode.RP_EXECUTION_FAILED

    name: str = ""

    def __init__(
        self,
        name: str,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        self.name = name
        super().__init__(code, details, message)

    @property
    def rpc(self) -> str:
        """The same as ``name``, which is the newer word for it."""
        return self.name


class RpcTimeout(RpcError, TimeoutError):
    """No answer arrived within the call's time-out. The other end may have done the work."""

    default_code = ErrorCode.RP_TIMEOUT


class RpcNotRegistered(RpcError, LookupError):
    """The other end has no procedure of that name."""

    default_code = ErrorCode.RP_NOT_REGISTERED


class RpcDisconnected(RpcError, ConnectionError):
    """The connection ended before the answer arrived.

    Attributes:
        sent: Whether the call had been handed to the socket. If not, the other end has certainly
            not seen it; if so, it may have done the work.
    """

    sent: bool = True

    default_code = ErrorCode.RP_DISCONNECT

    def __init__(
        self,
        name: str,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
        *,
        sent: bool = True,
    ) -> None:
        self.sent = sent
        super().__init__(name, code, details, message)


class RpcFailed(RpcError):
    """The procedure raised. ``code`` and ``details`` are those that the other end sent."""


class NotAuthorized(WseError, PermissionError):
    """The server refused the identity, or this client could not answer its challenge."""

    default_code = ErrorCode.NOT_AUTHORIZED


class ConnectTimeout(WseError, TimeoutError):
    """The connection was not ready within its time-out."""

    default_code = ErrorCode.CONNECT_TIMEOUT


class ConnectionFailed(WseError, ConnectionError):
    """The server could not be reached, or closed the connection before the client was ready."""

    default_code = ErrorCode.WS_CLIENT_ERROR


class ConnectionNotReady(WseError, ConnectionError):
    """There is no open connection. Connect first, or wait until the client has reconnected."""

    default_code = ErrorCode.CONNECTION_NOT_READY


class ReceiveTimeout(WseError, TimeoutError):
    """No matching message arrived within the time-out."""

    default_code = ErrorCode.RECEIVE_TIMEOUT


class SendTimeout(WseError, TimeoutError):
    """The send buffer stayed full until the time-out; the message was not sent."""

    default_code = ErrorCode.SEND_BUFFER_FULL


class WaitTimeout(WseError, TimeoutError):
    """What was waited for did not happen within the time-out."""

    default_code = ErrorCode.TIMEOUT


class AlreadyConnected(WseError):
    """The client is connected or connecting; close it first."""

    default_code = ErrorCode.CLIENT_ALREADY_CONNECTED


class ProtocolError(WseError):
    """The peer violated the protocol, or the two ends speak different protocols."""

    default_code = ErrorCode.PROTOCOL_VIOLATION


class NotSerializable(WseError, TypeError):
    """The protocol cannot encode this payload. Nothing of the message was sent."""

    default_code = ErrorCode.NOT_SERIALIZABLE


class WrongThread(WseError, RuntimeError):
    """A blocking call was made on the loop's own thread, or on an object copied by a fork."""

    default_code = ErrorCode.WRONG_THREAD


# -- text that is safe to print

MAX_ERROR_TEXT = 1000  # characters of str(error) and repr(error)


def origin_of(exc: BaseException) -> dict[str, Any]:
    """What an error answer says about an exception: type name and text (docs/wire.md 4)."""
    return {"name": type(exc).__name__, "message": text_of(exc)}


def text_of(exc: BaseException) -> str:
    """``str(exc)``, also for an exception whose ``__str__`` raises: reporting must not fail."""
    try:
        return str(exc)
    except Exception:
        return f"<unprintable {type(exc).__name__}>"


def repr_of(value: object) -> str:
    """``repr(value)``, also for a value whose ``__repr__`` raises."""
    try:
        return repr(value)
    except Exception:
        return f"<unprintable {type(value).__name__}>"


def printable(text: str, limit: int = 200) -> str:
    """Text of a peer as it may stand in a log line, a repr or an error.

    Everything that is not printable (line breaks, terminal escapes, characters that reorder a
    line) is replaced by its escape, as in ``repr``, and the result is cut.

    Args:
        text: What the peer wrote.
        limit: Characters to keep, at least 1. A cut text ends in an ellipsis.
    """
    if len(text) > limit:
        text = text[:limit]  # before escaping, so that the work is bounded, too
        cut = True
    else:
        cut = False
    if not text.isprintable():
        text = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
        )
    if cut or len(text) > limit:
        return text[: limit - 1] + "\u2026"
    return text


_URL = re.compile(
    # A colon begins a password, which ends at the last "@", even where it holds an unescaped "/"
    # or "#". No part can match the same text in two ways, so the time is linear.
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,20}://)"
    r"(?P<user>[^\s<>/?#@:]*(?::[^\s<>]*)?@)?"
    r"(?P<place>[^\s<>?#]*)"
    r"(?P<query>\?[^\s<>#]*)?"
    r"(?P<fragment>#[^\s<>]*)?",
    re.IGNORECASE,
)
_AFTER_A_URL = ".,:;!?'\")]}"  # belongs to the sentence, where it ends the URL


def mask_urls(text: str) -> str:
    """Hide what may be secret in the URLs of a text: credentials, query values and fragments.

    ``wss://user:pass@host/ws?token=abc`` becomes ``wss://***@host/ws?token=***``.
    """
    return _URL.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    scheme, user, place, query, fragment = match.groups(default="")
    tail = query + fragment
    tail = tail[len(tail.rstrip(_AFTER_A_URL)) :]
    masked = scheme + ("***@" if user else "") + place
    if query:
        items = [item.partition("=") for item in query[1:].rstrip(_AFTER_A_URL).split("&")]
        masked += "?" + "&".join(
            f"{key}=***" if equals else "***" if key else "" for key, equals, _ in items
        )
    if fragment:
        masked += "#***"
    return masked + tail.removeprefix("?")
