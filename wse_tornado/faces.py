"""What the blocking and the async classes have in common, written once. No waiting here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from .core.connection import Life
from .core.connector import Connector
from .core.hub import Hub
from .core.server_connection import ServerConnection
from .core.users import User, View
from .errors import Status
from .events import ClientChannel, ClientHandler, ServerChannel, ServerHandler
from .protocol import Protocol
from .signals import ClientSignals, ServerSignals

__all__ = ["ClientFace", "ConnectionFace", "IdentityFace", "ServerFace"]

C = TypeVar("C")
U = TypeVar("U")
Challenge1 = TypeVar("Challenge1", bound=Callable[[Any], Any])


class ConnectionFace(Generic[U]):
    """What users' handlers see of one device of one user."""

    __slots__ = ("_conn",)

    def __init__(self, conn: ServerConnection) -> None:
        self._conn = conn

    @property
    def conn_id(self) -> str:
        """Its id, unique on this server."""
        return self._conn.conn_id

    @property
    def cid(self) -> Any:
        """The user's id."""
        return self._conn.cid

    @property
    def client(self) -> U:
        """The user, with all devices."""
        face: U = self._conn.user.face
        return face

    @property
    def identity(self) -> Any:
        """What the client presented to get in."""
        return self._conn.identity

    @property
    def meta(self) -> dict[str, Any]:
        """What the client told about this device."""
        return self._conn.meta

    @property
    def remote_addr(self) -> str:
        """The peer's address."""
        return self._conn.remote_addr

    @property
    def ready_state(self) -> int:
        """The state of its WebSocket, as browsers number it: 1 open, 3 closed."""
        return 3 if self._conn.life is Life.ENDED else 1

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping took, None before the first."""
        return self._conn.latency

    def __repr__(self) -> str:
        return repr(self._conn)


class IdentityFace(Generic[C]):
    """What users' handlers see of one user."""

    __slots__ = ("_user",)

    def __init__(self, user: User) -> None:
        self._user = user

    @property
    def cid(self) -> Any:
        """The id that ``identify`` accepted."""
        return self._user.cid

    @property
    def meta(self) -> dict[str, Any]:
        """What the user's newest device told about itself; of the last one where none is left."""
        return self._user.meta

    @property
    def conns(self) -> Mapping[str, C]:
        """The user's open connections by ``conn_id``, oldest first; a live, read-only view."""
        return View(self._user.devices)

    def __repr__(self) -> str:
        return repr(self._user)


class ServerFace(Generic[U]):
    """What both servers offer beside listening and sending."""

    _hub: Hub

    @property
    def when(self) -> ServerSignals:
        """The server's signals: ``@server.when.joined``. See `ServerSignals`."""
        return self._hub.when

    @property
    def channel(self) -> ServerChannel:
        """Handlers of messages: ``@server.channel.on("type")``, called with ``(conn, payload)``."""
        return self._hub.shared.channel

    @property
    def clients(self) -> Mapping[Any, U]:
        """The users who are connected, by id; a live, read-only view."""
        return View(self._hub.users.by_id)

    @property
    def conn_per_user(self) -> int:
        """Devices one user may have."""
        return self._hub.conn_per_user

    @property
    def timeout(self) -> float:
        """Seconds that a call waits for its answer by default."""
        return self._hub.shared.timeout

    @property
    def protocol(self) -> Protocol:
        """How messages are written."""
        return self._hub.shared.protocol

    def use_challenge(self, fn: Challenge1) -> Challenge1:
        """Challenge every client before ``identify`` sees it; works as a decorator.

        Args:
            fn: ``fn(auth)`` returns the quest or calls ``auth.refuse()``; a plain or a coroutine
                function. An object with a ``verify(auth)`` method, such as `HmacChallenge`, also
                checks the answers itself.

        Raises:
            TypeError: It cannot be called with one argument.
        """
        self._hub.use_challenge(fn)
        return fn

    @overload
    def register(self, name: str, fn: ServerHandler, *, inline: bool = False) -> ServerHandler: ...
    @overload
    def register(
        self, name: str, fn: None = None, *, inline: bool = False
    ) -> Callable[[ServerHandler], ServerHandler]: ...
    def register(
        self, name: str, fn: Callable[..., Any] | None = None, *, inline: bool = False
    ) -> Any:
        """Answer calls of ``name`` with what ``fn(conn, payload)`` returns; works as a decorator.

        A plain function runs on a worker thread of a blocking server, beside all handlers, and on
        the loop of an async one. With ``inline=True`` it runs on the loop in any case, where it
        must be quick and must not block.

        Args:
            name: The procedure's name, a non-empty string.
            fn: The procedure, a plain or a coroutine function; without it, a decorator is returned.
            inline: Run a plain function on the loop itself.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with two arguments.
        """
        return self._hub.shared.procedures.register(name, fn, inline=inline)

    def unregister(self, name: str) -> None:
        """Forget a procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        self._hub.shared.procedures.unregister(name)

    def stats(self) -> dict[str, Any]:
        """Counters and levels as a plain dictionary; cheap enough for every second. Any thread.

        Totals count from the making of this server: ``messages`` and ``bytes`` each way,
        ``calls_served`` and ``calls_made`` by outcome, ``closings`` by code and reason. Levels are
        of now: ``connections``, ``users``, ``strangers`` (unauthenticated connections), ``queued``
        (messages that wait for handlers), ``send_buffer`` (bytes that wait for slow peers),
        ``calls_running`` and ``calls_pending``, ``latency`` (seconds of the last pings: mean and
        maximum, None before the first).
        """
        return self._hub.stats()


class ClientFace:
    """What both clients offer beside connecting and talking."""

    _connector: Connector

    @property
    def status(self) -> Status:
        """What the client is doing now."""
        return self._connector.status

    @property
    def url(self) -> str | None:
        """Where it connects to; None where a function says it, before that was asked."""
        return self._connector.url

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Close code and reason of the last connection that ended, None before one has."""
        return self._connector.closed_with

    @property
    def when(self) -> ClientSignals:
        """The client's signals: ``@client.when.closed``. See `ClientSignals`."""
        return self._connector.when

    @property
    def channel(self) -> ClientChannel:
        """Handlers of messages: ``@client.channel.on("type")``, called with ``(payload)``."""
        return self._connector.shared.channel

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping took, None before the first."""
        return self._connector.latency

    def challenge(self, fn: Challenge1) -> Challenge1:
        """Solve the server's challenges with ``fn(quest)``, which returns the solution.

        A plain or a coroutine function; works as a decorator. See `HmacSolver`.

        Raises:
            TypeError: It cannot be called with one argument.
        """
        self._connector.set_solver(fn)
        return fn

    @overload
    def register(self, name: str, fn: ClientHandler, *, inline: bool = False) -> ClientHandler: ...
    @overload
    def register(
        self, name: str, fn: None = None, *, inline: bool = False
    ) -> Callable[[ClientHandler], ClientHandler]: ...
    def register(
        self, name: str, fn: Callable[..., Any] | None = None, *, inline: bool = False
    ) -> Any:
        """Answer the server's calls of ``name`` with what ``fn(payload)`` returns.

        Works as a decorator. A plain function runs on a worker thread of a blocking client, beside
        all handlers, and on the loop of an async one. With ``inline=True`` it runs on the loop in
        any case, where it must be quick and must not block.

        Args:
            name: The procedure's name, a non-empty string.
            fn: The procedure, a plain or a coroutine function; without it, a decorator is returned.
            inline: Run a plain function on the loop itself.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with one argument.
        """
        return self._connector.shared.procedures.register(name, fn, inline=inline)

    def unregister(self, name: str) -> None:
        """Forget a procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        self._connector.shared.procedures.unregister(name)

    def stats(self) -> dict[str, Any]:
        """Counters and levels as a plain dictionary; cheap enough for every second. Any thread.

        Totals count from the making of this client: ``messages`` and ``bytes`` each way,
        ``calls_served`` and ``calls_made`` by outcome, ``closings`` by code and reason,
        ``inbox_dropped``. Levels are of now: ``status``, ``inbox`` and ``queued`` (messages that
        wait to be received, and for handlers), ``send_buffer`` (bytes), ``calls_running`` and
        ``calls_pending``, ``latency`` (seconds of the last ping, None before the first).
        """
        return self._connector.stats()
