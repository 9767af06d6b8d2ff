"""The blocking server: `AsyncWseServer` on a loop thread, with handlers that may block."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from ..admission import AuthRequest
from ..aio.connection import Connection as CoreConnection
from ..aio.identity import ClientIdentity as CoreIdentity
from ..aio.identity import View
from ..aio.link import check_timeout, ignore_transport
from ..aio.pages import PageRule, check_rules
from ..aio.server import AsyncWseServer, ServerSignals
from ..errors import ConnectionNotReady, Reason
from ..events import Channel
from ..limits import Limits
from ..protocol import Protocol
from ..rpc import check_rpc_name, disconnected_error, timeout_error
from ..transport.base import SharedMessage
from .dispatch import ThreadDispatcher, Workers
from .loop import Deadline, LoopThread, Wait

__all__ = ["ClientIdentity", "Connection", "WseServer"]

F = TypeVar("F", bound=Callable[..., Any])


class Connection:
    """One device of one user, as handlers of a blocking server get it. Any thread."""

    __slots__ = ("_core", "_server")

    def __init__(self, server: WseServer, core: CoreConnection) -> None:
        self._server = server
        self._core = core

    @property
    def conn_id(self) -> str:
        """Its id, unique on this server."""
        return self._core.conn_id

    @property
    def cid(self) -> Any:
        """The user's id."""
        return self._core.cid

    @property
    def client(self) -> ClientIdentity:
        """The user, with all devices."""
        facade: ClientIdentity = self._core.client.handle
        return facade

    @property
    def identity(self) -> Any:
        """What the client presented to get in."""
        return self._core.identity

    @property
    def meta(self) -> dict[str, Any]:
        """What the client told about this device."""
        return self._core.meta

    @property
    def remote_addr(self) -> str:
        """The peer's address."""
        return self._core.remote_addr

    @property
    def latency(self) -> float | None:
        """Seconds the last ping took, None before the first."""
        return self._core.latency

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to this device only. Never waits; a device that does not keep up is closed with
        1013 (``Limits.max_send_buffer``).

        Returns:
            1, or 0 where the connection is over.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        return self._server._deliver(self._server._core.pack(type, payload), (self._core,))

    def call(self, rp: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure that this device has registered, and wait for its answer.

        Args:
            rp: Its name.
            payload: Its argument.
            timeout: Seconds; the server's ``timeout`` by default.

        Raises:
            RpcTimeout: No answer in time.
            RpcNotRegistered: The device has no such procedure.
            RpcDisconnected: The connection ended first.
            RpcFailed: The procedure raised.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        core, loop = self._core, self._server._loop
        check_rpc_name(rp)
        endpoint = self._server._core.endpoint
        seconds = endpoint.timeout if timeout is None else check_timeout(timeout)
        deadline = Deadline(seconds)
        loop.check_may_block("call")
        call = core.prepare_call(rp, payload)
        wait = Wait()
        loop.track(wait)
        try:
            if not loop.post(core.begin_call, call, wait.settle):
                raise disconnected_error(rp, 1006, "the server has stopped", sent=False)
            if not wait.wait(deadline.left()):
                raise timeout_error(rp, seconds)
            return wait.outcome()
        except BaseException:
            if not wait.done:
                loop.post(core.forget_call, call.stamp)
            raise
        finally:
            loop.untrack(wait)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close this connection with 1000 and ``reason``, without waiting.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._server._loop.check_process()
        self._server._loop.post(self._core.drop, reason)

    def __repr__(self) -> str:
        return repr(self._core)


class ClientIdentity:
    """One user of a blocking server, with all devices. Any thread."""

    __slots__ = ("_core", "_server")

    def __init__(self, server: WseServer, core: CoreIdentity) -> None:
        self._server = server
        self._core = core

    @property
    def cid(self) -> Any:
        """The id that ``identify`` accepted."""
        return self._core.cid

    @property
    def conns(self) -> Mapping[str, Connection]:
        """The user's open connections by ``conn_id``, oldest first; a read-only view."""
        return View(self._core.own_conns)

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to every device of this user.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._server._core.pack(type, payload)
        return self._server._deliver(message, self._core.own_conns.copy().values())

    def drop(self, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of this user with 1000 and ``reason``, without waiting.

        Returns:
            How many connections that are.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._server._loop.check_process()
        count = len(self._core.own_conns)
        self._server._loop.post(self._core.drop, reason)
        return count

    def __repr__(self) -> str:
        return repr(self._core)


class WseServer:
    """Authenticated users over WebSockets, for synchronous code.

    ``start`` (or ``with server:``) opens the port on a loop thread. Handlers may block: those of
    one connection run in order, those of different connections beside one another, on at most
    ``Limits.max_workers`` threads; calls are served on as many again. Every method may be called
    from any thread.

    Args:
        port: Where to listen; 0 takes a free one, see `port`.
        identify: ``identify(auth)`` decides who a client is: it calls ``auth.accept(cid)`` or
            ``auth.refuse()``, or returns the client id. It may block.
        host: A name or an address to bind; None or "" binds all.
        path: Where it answers, a regular expression; everywhere by default. The module for pages
            is one level below it: ``/wse.js`` by default.
        conn_per_user: Devices one user may have; a further one pushes out the oldest.
        protocol: How messages are written; `JsonProtocol` by default.
        timeout: Seconds a call waits for its answer by default.
        linger: Seconds a user stays after the last device has gone, before ``left``.
        limits: Bounds; see `Limits`.
        expose_errors: Tell callers the stack of a procedure that raised.
        allowed_origins: Origins of pages that may connect besides those Tornado allows, such as
            ``["https://example.com"]``; ``["*"]`` allows all.
        compression: Accept permessage-deflate (RFC 7692) for messages of 256 bytes and more: True,
            or a dictionary with ``compression_level``, ``mem_level``, and
            ``server_no_context_takeover=True``, which saves memory and lets a broadcast be
            compressed once.
        transport: Without effect; deprecated.
        ssl_options: An ``ssl.SSLContext`` to serve ``wss://``.
        xheaders: Believe ``X-Real-Ip`` and ``X-Forwarded-For``; only behind your own proxy.
        handlers: Rules of pages beside the socket, as ``tornado.web.Application`` takes them:
            ``[(r"/", MainHandler)]``. They come before the socket, also at its own path, except
            where a request asks for a WebSocket. The handlers are Tornado's: they run on the loop
            thread, so they must not block, and of this server's methods may call all that do not
            wait.
        loop: A `LoopThread` of your own; by default all blocking objects share one.

    Raises:
        TypeError, ValueError: An argument makes no sense; the message says which.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        identify: Callable[[AuthRequest], Any] | None = None,
        host: str | None = "localhost",
        path: str = r"/.*",
        conn_per_user: int = 1,
        protocol: Protocol | None = None,
        timeout: float = 20,
        linger: float = 0,
        limits: Limits | None = None,
        expose_errors: bool = False,
        allowed_origins: Iterable[str] | None = None,
        compression: bool | Mapping[str, Any] = False,
        transport: Any = None,
        ssl_options: ssl.SSLContext | dict[str, Any] | None = None,
        xheaders: bool = False,
        handlers: Iterable[PageRule] = (),
        loop: LoopThread | None = None,
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError(f"port is a number from 0 to 65535, not {port!r}")
        ignore_transport(transport)
        limits = limits or Limits()
        self._loop = loop or LoopThread.shared()
        self._ordered = Workers("wse-tornado-server", limits.max_workers)
        self._calls = Workers("wse-tornado-server-call", limits.max_workers)
        self._core = AsyncWseServer(
            identify=identify,
            conn_per_user=conn_per_user,
            protocol=protocol,
            timeout=timeout,
            linger=linger,
            limits=limits,
            expose_errors=expose_errors,
            allowed_origins=allowed_origins,
            compression=compression,
            _dispatcher=ThreadDispatcher(self._loop, self._ordered, self._calls),
        )
        self._core.connection_facade = lambda core: Connection(self, core)
        self._core.identity_facade = lambda core: ClientIdentity(self, core)
        self._wanted_port = port
        self._host = host
        self._path = path
        self._ssl_options = ssl_options
        self._xheaders = xheaders
        self._handlers = check_rules(handlers)
        self._lock = threading.Lock()
        self._started = False
        self._stopped: Wait | None = None
        self._unlistening: asyncio.Future[None] | None = None

    # -- life

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        return self._core.port

    @property
    def url(self) -> str:
        """Where clients of this machine reach it.

        Raises:
            ConnectionNotReady: It does not listen.
        """
        if self._core.port is None:
            raise ConnectionNotReady(None, {}, "the server does not listen; call start() first")
        scheme = "wss" if self._ssl_options is not None else "ws"
        host = self._host if self._host not in (None, "", "0.0.0.0", "::") else "localhost"  # noqa: S104
        return f"{scheme}://{f'[{host}]' if host and ':' in host else host}:{self._core.port}"

    def start(self, *, timeout: float = 10) -> WseServer:
        """Listen. Waits until the port is open.

        Returns:
            This server.

        Raises:
            OSError: The port is taken or not allowed.
            RuntimeError: It is started already.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("start")
        with self._lock:
            if self._started:
                raise RuntimeError("the server is started already; stop() it first")
            self._loop.acquire()
            self._started = True
            self._stopped = Wait()
        self._ordered.resume()
        self._calls.resume()
        try:
            self._loop.run(self._listen, Deadline(timeout), "start")
        except BaseException:
            self._loop.post(self._unlisten)
            self._let_go()
            raise
        self._loop.track(self._stopped)
        self._loop.at_goodbye(self._core.stop)
        return self

    async def _listen(self) -> None:
        if not self._started:
            raise ConnectionNotReady(None, {}, "the server was stopped while it was starting")
        self._core.listen(
            self._wanted_port,
            self._host,
            path=self._path,
            ssl_options=self._ssl_options,
            xheaders=self._xheaders,
            handlers=self._handlers,
        )

    def _unlisten(self) -> None:
        """Whoever started it does not know that it listens; on a shared loop it would for ever."""
        if self._core.port is not None:
            self._unlistening = asyncio.ensure_future(self._core.stop())

    def stop(self, grace: float = 0) -> None:
        """Stop: accept nobody, let running calls finish, close with 1012. Waits for the sockets.

        Clients come back on 1012, to another server or to this one's successor. Stopping twice is
        no error.

        Args:
            grace: Seconds to wait for the calls that are being served.

        Raises:
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("stop")
        with self._lock:
            if not self._started:
                return
        seconds = grace + self._core.endpoint.limits.close_timeout + 1
        try:
            self._loop.run(lambda: self._core.stop(grace), Deadline(seconds), "stop")
        except ConnectionNotReady:
            pass  # the loop has ended, and the sockets with it
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            started, self._started = self._started, False
            stopped = self._stopped
        if not started:
            return
        if stopped is not None:
            stopped.settle(None, None)
            self._loop.untrack(stopped)
        self._loop.not_at_goodbye(self._core.stop)
        self._ordered.retire()
        self._calls.retire()
        self._loop.release()

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the server is stopped, from another thread or by Ctrl-C.

        Returns:
            True, or False where the time is over first.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("wait")
        stopped = self._stopped
        return True if stopped is None else stopped.wait(timeout)

    def __enter__(self) -> WseServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        if not self._loop.detached:  # a forked child leaves the parent's block, too
            self.stop()

    # -- for users

    @property
    def when(self) -> ServerSignals:
        """The server's signals: ``@server.when.joined``. See `ServerSignals`."""
        return self._core.when

    @property
    def channel(self) -> Channel:
        """Handlers of messages: ``@server.channel.on("type")``, called with ``(conn, payload)``."""
        return self._core.channel

    @property
    def clients(self) -> Mapping[Any, ClientIdentity]:
        """The users who are connected, by id; a live, read-only view."""
        return View(self._core.users)

    def stats(self) -> dict[str, Any]:
        """Counters and levels as a plain dictionary; see `AsyncWseServer.stats`. Any thread."""
        return self._core.stats()

    def use_challenge(self, fn: F) -> F:
        """Challenge every client before ``identify`` sees it; works as a decorator.

        Args:
            fn: ``fn(auth)`` returns the quest or calls ``auth.refuse()``. An object with a
                ``verify(auth)`` method, such as `HmacChallenge`, also checks the answers itself.

        Raises:
            TypeError: It cannot be called with one argument.
        """
        return self._core.use_challenge(fn)

    def register(self, name: str, fn: F | None = None, *, inline: bool = False) -> Any:
        """Answer calls of ``name`` with what ``fn(conn, payload)`` returns; works as a decorator.

        The function runs on a worker thread, beside all handlers; with ``inline=True`` on the loop
        itself, where it must be quick and must not block.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with two arguments.
        """
        return self._core.register(name, fn, inline=inline)

    def unregister(self, name: str) -> None:
        """Forget a procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        self._core.unregister(name)

    def broadcast(self, type: Any, payload: Any = None, *, exclude: Hashable = None) -> int:
        """Send to every device of every user, but not to those of the user ``exclude``.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._core.pack(type, payload)
        conns = self._core.connections.copy().values()
        if exclude is None:
            return self._deliver(message, conns)
        return self._deliver(message, [conn for conn in conns if conn.cid != exclude])

    def send(self, cid: Any, type: Any, payload: Any = None) -> int:
        """Send to every device of one user.

        Returns:
            How many devices the message was handed to; 0 where the user is not connected.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._core.pack(type, payload)
        client = self._core.users.get(cid)
        return self._deliver(message, client.own_conns.copy().values()) if client else 0

    def drop_client(self, cid: Any, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of one user with 1000 and ``reason``, without waiting.

        Returns:
            How many connections that are.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        client = self._core.users.get(cid)
        if client is None:
            return 0
        facade: ClientIdentity = client.handle
        return facade.drop(reason)

    def _deliver(self, message: SharedMessage, conns: Iterable[CoreConnection]) -> int:
        """Hand a message to those connections that are open, on the loop."""
        self._loop.check_process()
        receivers = [conn for conn in conns if conn.ready]
        if not receivers or not self._loop.post(_send_all, receivers, message):
            return 0
        return len(receivers)

    def __repr__(self) -> str:
        state = f"port={self.port}" if self.port is not None else "stopped"
        return f"<WseServer {state} users={len(self._core.users)}>"


def _send_all(conns: list[CoreConnection], message: SharedMessage) -> None:
    for conn in conns:
        conn.send_shared(message)
