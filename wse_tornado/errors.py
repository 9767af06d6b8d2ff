"""Every error, code, close reason and status of the library, and how errors travel.

This module knows names and data only: it does no I/O and imports nothing of the library.

    WseError
    ├── RpcError                        a call failed; .rpc names the procedure
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

from collections.abc import Mapping
from enum import Enum
from typing import Any

__all__ = [
    "AlreadyConnected",
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


class ErrorCode(_Name):
    """What went wrong, by name: ``error.code == ErrorCode.RP_TIMEOUT``.

    First the codes that all ends of the wire share (WIRE.md 7), then those this library adds.
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


class Reason(_Name):
    """Why a connection was closed: what ``closed``, ``left`` and ``disconnected`` tell.

    First the reasons that all ends of the wire share (WIRE.md 5), then those this library adds.
    A server may close with any other text.
    """

    BY_CLIENT = "wse.by-client"
    BY_SERVER = "wse.by-server"
    NOT_AUTHORIZED = "wse.not-authorized"
    PROTOCOL_ERR = "wse.protocol-error"
    CLIENTS_CONCURRENCY = "wse.clients-concurrency"
    JUMP = "jump"

    SLOW_CONSUMER = "wse.slow-consumer"
    SERVER_STOPPING = "wse.server-stopping"
    SERVER_FULL = "wse.server-full"
    AUTH_TIMEOUT = "wse.auth-timeout"
    HEARTBEAT = "wse.heartbeat-timeout"
    RATE_LIMIT = "wse.rate-limit"
    QUEUE_OVERFLOW = "wse.queue-overflow"


class Status(_Name):
    """What a client is doing (WIRE.md 7).

    IDLE: not connected yet. CONNECTING: on its way for the first time. READY: let in. OFFLINE:
    closed, refused or lost, and not coming back by itself. RE_CONNECTING: lost, and coming back.
    """

    IDLE = "IDLE"
    CONNECTING = "CONNECTING"
    READY = "READY"
    OFFLINE = "OFFLINE"
    RE_CONNECTING = "RE_CONNECTING"


WSE_ERROR = ErrorCode
WSE_REASON = Reason
WSE_STATUS = Status


class WseError(Exception):
    """The root of all errors of this library, and what a procedure raises to answer with a code.

    Args:
        code: A stable name for the problem, such as ``"shop.sold-out"``.
        details: Keys that say more. Sent to the other end when a procedure raises the error.
        message: One readable sentence; made from code and details when left out.
    """

    default_code: str = ErrorCode.WS_CLIENT_ERROR

    def __init__(
        self,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        self.code: str = str(code if code is not None else self.default_code)
        self.details: dict[str, Any] = dict(details) if details is not None else {}
        self.message: str = message if message is not None else self._describe()
        # One argument: of two or more, the OSErrors of the tree would make errno and strerror.
        super().__init__(self.message)

    def _describe(self) -> str:
        if not self.details:
            return self.code
        inner = ", ".join(f"{key}={value!r}" for key, value in self.details.items())
        return f"{self.code} ({inner})"

    def __str__(self) -> str:
        return " ".join(self.message.split())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, details={self.details!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The builtin bases disagree about arguments; rebuild from the state instead, so that
        # errors cross process pools.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[WseError], args: tuple[Any, ...], state: dict[str, Any]) -> WseError:
    error = cls.__new__(cls)
    error.args = args  # an OSError does not take them from __new__
    error.__dict__.update(state)
    return error


class RpcError(WseError):
    """A call failed. ``rpc`` is the name of the procedure."""

    default_code = ErrorCode.RP_EXECUTION_FAILED

    def __init__(
        self,
        rpc: str,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        self.rpc = rpc
        super().__init__(code, details, message)


class RpcTimeout(RpcError, TimeoutError):
    """No answer came within the call's time-out. The other end may still have done the work."""

    default_code = ErrorCode.RP_TIMEOUT


class RpcNotRegistered(RpcError, LookupError):
    """The other end has no procedure of that name."""

    default_code = ErrorCode.RP_NOT_REGISTERED


class RpcDisconnected(RpcError, ConnectionError):
    """The connection ended before the answer came.

    ``sent`` says whether the call had been handed to the socket: if not, the other end has
    certainly not seen it; if so, it may have done the work.
    """

    default_code = ErrorCode.RP_DISCONNECT

    def __init__(
        self,
        rpc: str,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        message: str | None = None,
        *,
        sent: bool = True,
    ) -> None:
        self.sent = sent
        super().__init__(rpc, code, details, message)


class RpcFailed(RpcError):
    """The procedure raised: ``code`` and ``details`` are what the other end sent."""


class NotAuthorized(WseError, PermissionError):
    """The server refused the identity, or this client could not answer its challenge."""

    default_code = ErrorCode.NOT_AUTHORIZED


class ConnectTimeout(WseError, TimeoutError):
    """The connection was not ready within its time-out."""

    default_code = ErrorCode.CONNECT_TIMEOUT


class ConnectionFailed(WseError, ConnectionError):
    """The server could not be reached, or hung up before the client was ready."""

    default_code = ErrorCode.WS_CLIENT_ERROR


class ConnectionNotReady(WseError, ConnectionError):
    """There is no connection to do this on. Connect first, or wait for the reconnection."""

    default_code = ErrorCode.CONNECTION_NOT_READY


class ReceiveTimeout(WseError, TimeoutError):
    """No fitting message came within the time-out."""

    default_code = ErrorCode.RECEIVE_TIMEOUT


class SendTimeout(WseError, TimeoutError):
    """The server did not take what waits to be sent within the time-out; this was not sent."""

    default_code = ErrorCode.SEND_BUFFER_FULL


class WaitTimeout(WseError, TimeoutError):
    """A wait was not over within its time-out."""

    default_code = ErrorCode.TIMEOUT


class AlreadyConnected(WseError):
    """The client is connected, or on its way; close it first."""

    default_code = ErrorCode.CLIENT_ALREADY_CONNECTED


class ProtocolError(WseError):
    """The other end broke the wire's rules, or the two ends speak different protocols."""

    default_code = ErrorCode.PROTOCOL_VIOLATION


class NotSerializable(WseError, TypeError):
    """The protocol cannot write this payload. Nothing of the message was sent."""

    default_code = ErrorCode.NOT_SERIALIZABLE


class WrongThread(WseError, RuntimeError):
    """A call that blocks was made where it would block the loop, or on a copy left by a fork."""

    default_code = ErrorCode.WRONG_THREAD


def origin_of(exc: BaseException) -> dict[str, Any]:
    """What an error answer tells of an exception: its type's name and its text (WIRE.md 4)."""
    return {"name": type(exc).__name__, "message": text_of(exc)}


def text_of(exc: BaseException) -> str:
    """Its text, also of one whose ``__str__`` raises: what tells a failure must not fail."""
    try:
        return str(exc)
    except Exception:
        return f"<unprintable {type(exc).__name__}>"
