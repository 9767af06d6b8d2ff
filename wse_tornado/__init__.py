"""Authenticated WebSocket users with several devices each, messages and calls both ways.

The plain names block: `WseServer` and `WseClient` need no ``async``. `AsyncWseServer` and
`AsyncWseClient` are the same on your own Tornado loop.

(PYTEST_DONT_REWRITE: the package ships a pytest plugin, and has no asserts for it to rewrite.)
"""

from .admission import AuthRequest, Challenge
from .aio.client import AsyncWseClient
from .aio.connection import AsyncClientIdentity, AsyncConnection
from .aio.server import AsyncWseServer
from .backoff import Backoff
from .blocking.client import WseClient
from .blocking.connection import ClientIdentity, Connection
from .blocking.loop import LoopThread
from .blocking.server import WseServer
from .challenge import HmacChallenge, HmacSolver
from .errors import (
    WSE_ERROR,
    WSE_REASON,
    WSE_STATUS,
    AlreadyConnected,
    CloseCode,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    NotAuthorized,
    NotSerializable,
    ProtocolError,
    Reason,
    ReceiveTimeout,
    RpcDisconnected,
    RpcError,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    SendTimeout,
    Status,
    WaitTimeout,
    WrongThread,
    WseError,
)
from .events import Channel, Signal
from .limits import Limits
from .protocol import InternalTypes, JsonProtocol, Message, Protocol
from .signals import ClientSignals, ServerSignals

__version__ = "0.1.0"

__all__ = [
    "WSE_ERROR",
    "WSE_REASON",
    "WSE_STATUS",
    "AlreadyConnected",
    "AsyncClientIdentity",
    "AsyncConnection",
    "AsyncWseClient",
    "AsyncWseServer",
    "AuthRequest",
    "Backoff",
    "Challenge",
    "Channel",
    "ClientIdentity",
    "ClientSignals",
    "CloseCode",
    "ConnectTimeout",
    "Connection",
    "ConnectionFailed",
    "ConnectionNotReady",
    "ErrorCode",
    "HmacChallenge",
    "HmacSolver",
    "InternalTypes",
    "JsonProtocol",
    "Limits",
    "LoopThread",
    "Message",
    "NotAuthorized",
    "NotSerializable",
    "Protocol",
    "ProtocolError",
    "Reason",
    "ReceiveTimeout",
    "RpcDisconnected",
    "RpcError",
    "RpcFailed",
    "RpcNotRegistered",
    "RpcTimeout",
    "SendTimeout",
    "ServerSignals",
    "Signal",
    "Status",
    "WaitTimeout",
    "WrongThread",
    "WseClient",
    "WseError",
    "WseServer",
    "__version__",
]
