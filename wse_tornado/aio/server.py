"""The server on the caller's loop."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from tornado.routing import URLSpec
from tornado.web import RequestHandler

from ..admission import AuthRequest
from ..core.dispatch import LoopDispatcher
from ..core.hub import Hub
from ..core.server_connection import ServerConnection
from ..core.shared import ignore_transport
from ..core.users import User
from ..errors import Reason
from ..faces import ServerFace
from ..limits import Limits
from ..protocol import Protocol
from .connection import AsyncClientIdentity, AsyncConnection
from .listener import Listener, routes
from .pages import PageRule

__all__ = ["AsyncWseServer"]


class AsyncWseServer(ServerFace[AsyncClientIdentity]):
    """Authenticated users over WebSockets, on the Tornado loop it is used on.

    Mount it with ``routes`` in an application, or let it ``listen`` by itself. Its methods are
    for that loop only, except for subscribing and registering, which any thread may do.

    Args:
        identify: As of `WseServer`; it must not block, and may be a coroutine function.
        transport: Without effect; deprecated.

    The other arguments are those of `WseServer`.

    Raises:
        TypeError, ValueError: An argument makes no sense; the message says which.
    """

    def __init__(
        self,
        *,
        identify: Callable[[AuthRequest], Any] | None = None,
        conn_per_user: int = 1,
        protocol: Protocol | None = None,
        timeout: float = 20,
        linger: float = 0,
        limits: Limits | None = None,
        expose_errors: bool = False,
        allowed_origins: Iterable[str] | None = None,
        compression: bool | Mapping[str, Any] = False,
        transport: Any = None,
    ) -> None:
        ignore_transport(transport)
        self._hub = Hub(
            dispatcher=LoopDispatcher(),
            inline=True,
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

    def _face_of(self, conn: ServerConnection) -> AsyncConnection:
        return AsyncConnection(self._hub, conn)

    def _face_of_user(self, user: User) -> AsyncClientIdentity:
        return AsyncClientIdentity(self._hub, user)

    @property
    def port(self) -> int | None:
        """The port that `listen` listens on, None while it does not."""
        return self._listener.port

    def broadcast(self, type: Any, payload: Any = None, *, exclude: Hashable = None) -> int:
        """As `WseServer.broadcast`."""
        message = self._hub.pack(type, payload)
        return self._hub.deliver(message, self._hub.users.everyone(exclude))

    def send(self, cid: Any, type: Any, payload: Any = None) -> int:
        """As `WseServer.send`."""
        message = self._hub.pack(type, payload)
        return self._hub.deliver(message, self._hub.users.devices_of(cid))

    def drop_client(self, cid: Any, reason: str = Reason.BY_SERVER) -> int:
        """As `WseServer.drop_client`."""
        devices = self._hub.users.devices_of(cid)
        self._hub.drop(devices, reason)
        return len(devices)

    def routes(self, path: str, *, base: type[RequestHandler] | None = None) -> list[URLSpec]:
        """Rules for a ``tornado.web.Application``; several servers can share one.

        They serve the socket at ``path``, and the module for pages one level below:
        ``import { WseClient } from "/ws/wse.js"`` where ``path`` is ``/ws``.

        Args:
            path: A regular expression, as Tornado's routes are. With groups in it, such as
                ``/rooms/(\\w+)``, the module is below each path that fits
                (``/rooms/kitchen/wse.js``); the groups reach ``auth.handler.path_args`` as ever.
                No socket is at a path that ends in ``/wse.js``.
            base: The class of your own handlers, so that ``auth.handler`` has what it adds:
                ``get_current_user`` for ``auth.handler.current_user``, or ``prepare``.

        Raises:
            TypeError: ``base`` is not a handler class.
        """
        return routes(self._hub, path, base)

    def listen(
        self,
        port: int,
        host: str | None = "localhost",
        *,
        path: str = r"/.*",
        ssl_options: ssl.SSLContext | dict[str, Any] | None = None,
        xheaders: bool = False,
        handlers: Iterable[PageRule] = (),
    ) -> int:
        """Serve on a port of its own; the loop must be running.

        Args:
            port: 0 takes a free one.
            host: A name or an address to bind; None or "" binds all.
            path: Where it answers, a regular expression; everywhere by default.
            ssl_options: Serve ``wss://``, as for Tornado's ``HTTPServer``.
            xheaders: Believe ``X-Real-Ip`` and ``X-Forwarded-For``; only behind your own proxy.
            handlers: Rules of pages beside the socket, as ``tornado.web.Application`` takes them:
                ``[(r"/", MainHandler)]``. They come before the socket, also at its own path, except
                where a request asks for a WebSocket. For more than pages, mount `routes`.

        Returns:
            The port.

        Raises:
            OSError: The port is taken or not allowed.
            RuntimeError: No loop is running in this thread.
            TypeError: ``handlers`` is not a list of rules.
        """
        return self._listener.listen(
            port, host, path=path, ssl_options=ssl_options, xheaders=xheaders, handlers=handlers
        )

    def add_sockets(
        self,
        sockets: Iterable[socket.socket],
        *,
        path: str = r"/.*",
        ssl_options: ssl.SSLContext | dict[str, Any] | None = None,
        xheaders: bool = False,
        handlers: Iterable[PageRule] = (),
    ) -> None:
        """Serve on listening sockets that exist already; see `listen`."""
        self._listener.add_sockets(
            sockets, path=path, ssl_options=ssl_options, xheaders=xheaders, handlers=handlers
        )

    async def stop(self, grace: float = 0) -> None:
        """Stop: accept nobody, let running calls finish, close with 1012, wait for the sockets.

        Clients come back on 1012, to another server or to this one's successor.

        Args:
            grace: Seconds to wait for the calls that are being served.
        """
        await self._listener.stop(grace)

    def __repr__(self) -> str:
        return f"<AsyncWseServer {self._listener!r}>"
