"""The blocking server: `AsyncWseServer` on a loop thread, with handlers that may block."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from ..admission import AuthRequest
from ..aio.listener import Listener
from ..aio.pages import PageRule, check_rules
from ..core.hub import Hub
from ..core.server_connection import ServerConnection
from ..core.shared import ignore_transport
from ..core.users import User
from ..errors import ConnectionNotReady, Reason
from ..faces import ServerFace
from ..limits import Limits
from ..protocol import Protocol
from .calling import Outbox
from .connection import ClientIdentity, Connection, post
from .dispatch import ThreadDispatcher, Workers
from .lease import Lease
from .loop import Deadline, LoopThread, Wait

__all__ = ["WseServer"]


class WseServer(ServerFace[ClientIdentity]):
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
        self._hub = Hub(
            dispatcher=ThreadDispatcher(self._loop, self._ordered, self._calls),
            inline=False,
            connection_face=self._face_of,
            user_face=self._face_of_user,
            identify=identify,
            conn_per_user=conn_per_user,
            protocol=protocol,
            timeout=timeout,
            linger=linger,
            limits=limits,
            expose_errors=expose_errors,
            allowed_origins=allowed_origins,
            compression=compression,
        )
        self._listener = Listener(self._hub)
        self._wanted_port = port
        self._host = host
        self._path = path
        self._ssl_options = ssl_options
        self._xheaders = xheaders
        self._handlers = check_rules(handlers)
        self._lease = Lease(self._goodbye, self._ordered, self._calls)
        self._stop_waits: set[Wait] = set()
        self._outbox = Outbox(self._loop, self._hub.shared.limits.max_send_buffer, _none, _at_once)

    async def _goodbye(self) -> None:
        await self._stop(0)

    def _face_of(self, conn: ServerConnection) -> Connection:
        return Connection(self._loop, self._outbox, self._hub, conn)

    def _face_of_user(self, user: User) -> ClientIdentity:
        return ClientIdentity(self._loop, self._outbox, self._hub, user)

    # -- life

    @property
    def port(self) -> int | None:
        """The port it listens on, None while it does not."""
        return self._listener.port

    @property
    def url(self) -> str:
        """Where clients of this machine reach it.

        Raises:
            ConnectionNotReady: It does not listen.
        """
        if self._listener.port is None:
            raise ConnectionNotReady(None, {}, "the server does not listen; call start() first")
        scheme = "wss" if self._ssl_options is not None else "ws"
        # A wildcard address is none to connect to, and "localhost" may be of the other family.
        loopback = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
        host = self._host or ""
        host = loopback.get(host, host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._listener.port}"

    def start(self, *, timeout: float = 10) -> WseServer:
        """Listen. Waits until the port is open.

        Returns:
            This server.

        Raises:
            OSError: The port is taken or not allowed.
            RuntimeError: It is started already.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        deadline = Deadline(timeout)

        async def listen() -> None:
            if self._lease.active or self._listener.port is not None:
                raise RuntimeError("the server is started already; stop() it first")
            self._lease.begin()
            try:
                self._listener.listen(
                    self._wanted_port,
                    self._host,
                    path=self._path,
                    ssl_options=self._ssl_options,
                    xheaders=self._xheaders,
                    handlers=self._handlers,
                )
            except BaseException:
                self._lease.end(self._lease.take())
                raise

        wait = Wait()
        try:
            self._loop.run(
                listen,
                deadline,
                "start",
                wait=wait,
                starting=True,
                undelivered=lambda _: self._stop_soon(),
            )
            return self
        except BaseException:
            if wait.done and wait.error is None:  # interrupted after it began to listen
                self._loop.post(self._stop_soon)
            elif wait.done:
                self._loop.settled(deadline)
            raise

    def _stop_soon(self) -> None:
        """On the loop: whoever started it does not know that it listens."""
        self._stopping_soon = asyncio.ensure_future(self._stop(0))

    async def _stop(self, grace: float) -> None:
        user = self._lease.take()
        try:
            await self._listener.stop(grace)
        finally:
            waits, self._stop_waits = self._stop_waits, set()
            for wait in waits:
                wait.settle(None, None)
            self._lease.end(user)

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
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not grace >= 0:
            raise ValueError(f"grace is a number of seconds, 0 or more, not {grace!r}")
        deadline = Deadline(grace + self._hub.shared.limits.close_timeout + 1)
        try:
            self._loop.run(lambda: self._stop(grace), deadline, "stop")
        except ConnectionNotReady:
            return  # the loop does not run, and so nothing of this server
        self._loop.settled(deadline)

    def wait(self, *, timeout: float | None = None) -> bool:
        """Wait until the server is stopped, from another thread or by Ctrl-C.

        Returns:
            True, or False where the time is over first.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        self._loop.check_may_block("wait")
        wait = Wait()
        self._stop_waits.add(wait)
        self._loop.track(wait)
        try:
            # Look again now that the wait is known: either the stop sees it, or this sees the stop.
            return not self._lease.active or wait.wait(timeout)
        finally:
            self._loop.untrack(wait)
            self._stop_waits.discard(wait)

    def __enter__(self) -> WseServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        if not self._loop.detached:  # a forked child leaves the parent's block, too
            self.stop()

    # -- sending

    def broadcast(self, type: Any, payload: Any = None, *, exclude: Hashable = None) -> int:
        """Send to every device of every user, but not to those of the user ``exclude``.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._hub.pack(type, payload)
        return post(self._outbox, self._hub, message, self._hub.users.everyone(exclude))

    def send(self, cid: Any, type: Any, payload: Any = None) -> int:
        """Send to every device of one user.

        Returns:
            How many devices the message was handed to; 0 where the user is not connected.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._hub.pack(type, payload)
        return post(self._outbox, self._hub, message, self._hub.users.devices_of(cid))

    def drop_client(self, cid: Any, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of one user with 1000 and ``reason``, without waiting.

        Returns:
            How many connections that are.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        devices = self._hub.users.devices_of(cid)
        if devices:
            self._loop.post(self._hub.drop, devices, reason)
        return len(devices)

    def __repr__(self) -> str:
        state = f"port={self.port}" if self.port is not None else "stopped"
        return f"<WseServer {state} users={len(self._hub.users.by_id)}>"


def _none() -> int:
    """Bytes that wait behind the outbox: each connection has a bound of its own."""
    return 0


async def _at_once(_size: int) -> None:
    """There is room as soon as the loop has taken what was posted before."""
