"""How sockets reach a hub: the rules for an application, and HTTP servers on ports of their own."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable
from errno import EADDRNOTAVAIL
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.routing import URLSpec
from tornado.web import Application, RequestHandler

from ..core.hub import Hub
from .handler import WseHandler
from .pages import PageRule, with_pages
from .script import ScriptHandler, script_path

__all__ = ["Listener", "routes"]

MAX_BODY = 1024 * 1024  # bytes of a request to a page; a handshake has no body
MAX_HEADER = 16 * 1024  # bytes of a request's headers
BACKLOG = 128  # connections that the system completes before they are accepted


def routes(hub: Hub, path: str, base: type[RequestHandler] | None = None) -> list[URLSpec]:
    """Rules for an application: the module for pages, then the socket.

    Raises:
        TypeError: ``base`` is not a handler class.
    """
    handler: type[WseHandler] = WseHandler
    if base is not None:
        if not (isinstance(base, type) and issubclass(base, RequestHandler)):
            raise TypeError(f"base= takes a subclass of tornado.web.RequestHandler, not {base!r}")
        handler = type("WseHandler", (WseHandler, base), {})
    return [URLSpec(script_path(path), ScriptHandler), URLSpec(path, handler, {"hub": hub})]


class Listener:
    """The HTTP servers of one hub, and its port. On its loop.

    Attributes:
        port: Where `listen` listens, None while it does not.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._servers: list[HTTPServer] = []
        self.port: int | None = None

    def listen(self, port: int, host: str | None, **options: Any) -> int:
        """Serve on a port; the options are those of `add_sockets`. The port.

        Raises:
            OSError: The port is taken or not allowed.
            RuntimeError: No loop is running in this thread.
            TypeError: ``handlers`` is not a list of rules.
        """
        asyncio.get_running_loop()
        http = self._http_server(**options)
        sockets = bind(port, host or None)
        self._serve(http, sockets)
        self.port = int(sockets[0].getsockname()[1])
        return self.port

    def add_sockets(self, sockets: Iterable[socket.socket], **options: Any) -> None:
        """Serve on listening sockets that exist already."""
        self._serve(self._http_server(**options), sockets)

    def _http_server(
        self,
        *,
        path: str,
        ssl_options: ssl.SSLContext | dict[str, Any] | None,
        xheaders: bool,
        handlers: Iterable[PageRule],
    ) -> HTTPServer:
        limits = self._hub.shared.limits
        rules = with_pages(routes(self._hub, path), handlers)
        return HTTPServer(
            Application(rules, log_function=lambda _handler: None),
            ssl_options=ssl_options,
            xheaders=xheaders,
            # For the request of the handshake; Tornado would wait for an hour.
            idle_connection_timeout=limits.auth_timeout,
            body_timeout=limits.auth_timeout,
            max_body_size=MAX_BODY,
            max_header_size=MAX_HEADER,
        )

    def _serve(self, http: HTTPServer, sockets: Iterable[socket.socket]) -> None:
        self._hub.stopping = False
        http.add_sockets(sockets)
        self._servers.append(http)

    async def stop(self, grace: float) -> None:
        """Stop accepting, stop the hub, close what is left of HTTP."""
        servers, self._servers = self._servers, []
        for http in servers:
            http.stop()
        await self._hub.stop(grace)
        for http in servers:
            await http.close_all_connections()
        if not self._servers:  # nobody has called listen() meanwhile
            self.port = None

    def __repr__(self) -> str:
        if self._hub.stopping:
            state = "stopped"
        else:
            state = f"port={self.port}" if self.port is not None else "mounted"
        users, connections = len(self._hub.users.by_id), len(self._hub.connections)
        return f"{state} users={users} connections={connections}"


def bind(port: int, host: str | None) -> list[socket.socket]:
    """Listening sockets on every address of a host, all on one port.

    Unlike ``tornado.netutil.bind_sockets`` it leaves no socket bound where one of them fails.

    Raises:
        OSError: The port is taken or not allowed, or the host is unknown.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
        )
        # In this order, without repetitions: some systems name an address twice.
        for family, kind, proto, _, address in dict.fromkeys(found):
            if family == socket.AF_INET6 and not socket.has_ipv6:
                continue
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:  # the system has the address family compiled out
                if family == socket.AF_INET6:
                    continue
                raise
            sockets.append(sock)
            if os.name != "nt":  # there it would let two servers share the port
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # Or this socket would take the IPv4 addresses that the next one asks for.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            if port == 0 and len(sockets) > 1:  # the one that the first has got
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sock.bind(address)
            except OSError as exc:
                # A host without IPv6 often names ::1 all the same; Tornado skips it likewise.
                if family == socket.AF_INET6 and exc.errno == EADDRNOTAVAIL and len(found) > 1:
                    sockets.pop().close()
                    continue
                raise
            sock.listen(BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
