"""The server on the caller's loop: its signals, its users, its way into an application."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.routing import URLSpec
from tornado.web import Application, RequestHandler

from ..admission import AuthRequest
from ..errors import Reason, WseError
from ..events import Channel, Handler, Signal, check_handler, check_user_type
from ..limits import Limits
from ..protocol import Message, Protocol, check_protocol, encode
from ..transport.base import SharedMessage
from .connection import Connection, missing_identify
from .dispatch import Dispatcher, Lane, LoopDispatcher
from .handler import WseHandler
from .identity import ClientIdentity, Registry, View, deliver
from .link import (
    SERVICE_RESTART,
    TRY_AGAIN,
    Endpoint,
    check_timeout,
    ignore_transport,
    log_error,
    log_failure,
)
from .pages import PageRule, with_pages
from .script import ScriptHandler, script_path

__all__ = ["AsyncWseServer", "ServerSignals"]

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("wse_tornado.server")


class ServerSignals:
    """What a server tells; subscribe with ``server.when.joined(fn)`` or as a decorator.

    What one connection causes comes in order. What two connections of one user cause may overtake
    each other, when handlers of the first are still busy: `clients` knows who is there now.

    Attributes:
        joined: ``(client, meta)``, a user's first device is in.
        left: ``(client, code, reason)``, a user's last device is gone.
        connected: ``(conn)``, a device is in.
        disconnected: ``(conn, code, reason)``, a device is gone.
        ignored: ``(conn, message)``, a message of a type nobody listens to.
        error: ``(error, conn)``, a problem without a caller to raise in; ``conn`` may be None.
    """

    def __init__(self, *, inline: bool) -> None:
        self.joined = Signal("joined", ("client", "meta"), inline=inline)
        self.left = Signal("left", ("client", "code", "reason"), inline=inline)
        self.connected = Signal("connected", ("conn",), inline=inline)
        self.disconnected = Signal("disconnected", ("conn", "code", "reason"), inline=inline)
        self.ignored = Signal("ignored", ("conn", "message"), inline=inline)
        self.error = Signal("error", ("error", "conn"), inline=inline)


class AsyncWseServer:
    """Authenticated users over WebSockets, on the Tornado loop it is used on.

    Mount it with ``routes`` in an application, or let it ``listen`` by itself. Every method
    belongs on that loop, except for subscribing and registering, which may be done anywhere.

    Args:
        identify: ``identify(auth)`` decides who a client is: it calls ``auth.accept(cid)`` or
            ``auth.refuse()``, or returns the client id. A plain or a coroutine function.
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
        _dispatcher: Dispatcher | None = None,
    ) -> None:
        ignore_transport(transport)
        if isinstance(conn_per_user, bool) or not isinstance(conn_per_user, int):
            raise TypeError(f"conn_per_user is a number of devices, not {conn_per_user!r}")
        if conn_per_user < 1:
            raise ValueError(f"conn_per_user must be at least 1, not {conn_per_user!r}")
        if not linger >= 0:
            raise ValueError(f"linger must not be below 0 seconds, not {linger!r}")
        inline = _dispatcher is None
        self.endpoint = Endpoint(
            protocol=check_protocol(protocol),
            limits=limits or Limits(),
            dispatcher=_dispatcher or LoopDispatcher(),
            handler_params=("conn", "payload"),
            inline=inline,
            timeout=check_timeout(timeout),
            expose_errors=expose_errors,
        )
        self.when = ServerSignals(inline=inline)
        self.conn_per_user = conn_per_user
        self.compression: dict[str, Any] | None = None
        if compression:
            self.compression = {} if compression is True else dict(compression)
        if identify is not None:
            check_handler(identify, ("auth",), "identify")
        self._inline = inline
        self.identify_handler = Handler(identify or missing_identify, inline=inline)
        self.challenge_handler: Handler | None = None
        self.verify_handler: Handler | None = None
        self._origins = frozenset(
            origin.rstrip("/").lower() for origin in _origin_list(allowed_origins)
        )
        self._registry = Registry(linger, self._left)
        self._lane: Lane | None = None
        self._http_servers: list[HTTPServer] = []
        self._stopping = False
        self._open: set[Connection] = set()
        self._all_gone: asyncio.Future[None] | None = None
        # What users' handlers are given in place of a connection or a user.
        self.connection_facade: Callable[[Connection], Any] | None = None
        self.identity_facade: Callable[[ClientIdentity], Any] | None = None
        self.port: int | None = None

    # -- for users

    @property
    def channel(self) -> Channel:
        """Handlers of messages: ``@server.channel.on("type")``, called with ``(conn, payload)``."""
        return self.endpoint.channel

    @property
    def users(self) -> dict[Any, ClientIdentity]:
        """The registry's own mapping, for the blocking facade."""
        return self._registry.clients

    @property
    def connections(self) -> dict[str, Connection]:
        """All connections that are in, for the blocking facade."""
        return self._registry.connections

    @property
    def clients(self) -> Mapping[Any, ClientIdentity]:
        """The users who are connected, by id; a read-only view."""
        return View(self._registry.clients)

    def use_challenge(self, fn: F) -> F:
        """Challenge every client before ``identify`` sees it; works as a decorator.

        Args:
            fn: ``fn(auth)`` returns the quest or calls ``auth.refuse()``; a plain or a coroutine
                function. An object with a ``verify(auth)`` method, such as `HmacChallenge`, also
                checks the answers itself.

        Raises:
            TypeError: It cannot be called with one argument.
        """
        check_handler(fn, ("auth",), "use_challenge")
        verify = getattr(fn, "verify", None)
        if verify is not None:
            check_handler(verify, ("auth",), "use_challenge: verify")
            self.verify_handler = Handler(verify, inline=self._inline)
        else:
            self.verify_handler = None
        self.challenge_handler = Handler(fn, inline=self._inline)
        return fn

    def register(self, name: str, fn: F | None = None, *, inline: bool = False) -> Any:
        """Answer calls of ``name`` with what ``fn(conn, payload)`` returns; works as a decorator.

        Raises:
            ValueError: The name is not a non-empty string, or belongs to the library.
            WseError: RP_ALREADY_REGISTERED, the name is taken.
            TypeError: The function cannot be called with two arguments.
        """
        return self.endpoint.procedures.register(name, fn, inline=inline)

    def unregister(self, name: str) -> None:
        """Forget a procedure.

        Raises:
            WseError: RP_NOT_REGISTERED, there is none of that name.
        """
        self.endpoint.procedures.unregister(name)

    def broadcast(self, type: Any, payload: Any = None, *, exclude: Any = None) -> int:
        """Send to every device of every user, but not to those of the user ``exclude``.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
        """
        return deliver(self.pack(type, payload), self._registry.everyone(exclude))

    def send(self, cid: Any, type: Any, payload: Any = None) -> int:
        """Send to every device of one user.

        Returns:
            How many devices the message was handed to; 0 where the user is not connected.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
        """
        message = self.pack(type, payload)
        client = self._registry.clients.get(cid)
        return deliver(message, client.own_conns.values()) if client is not None else 0

    def drop_client(self, cid: Any, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of one user with 1000 and ``reason``.

        Returns:
            How many connections were closed.
        """
        client = self._registry.clients.get(cid)
        return client.drop(reason) if client is not None else 0

    def stats(self) -> dict[str, Any]:
        """Counters and levels as a plain dictionary; cheap enough for every second.

        Totals count from the making of this server: ``messages`` and ``bytes`` each way,
        ``calls_served`` and ``calls_made`` by outcome, ``closings`` by code and reason. Levels are
        of now: ``connections``, ``users``, ``strangers``, ``queued`` (messages that wait for
        handlers), ``send_buffer`` (bytes that wait for slow peers), ``calls_running`` and
        ``calls_pending``, ``latency`` (seconds of the last pings: mean and maximum, None before
        the first).
        """
        conns = tuple(self._open)
        totals = self.endpoint.counters.as_dict()
        for conn in conns:
            bytes_in, bytes_out = conn.traffic
            totals["bytes"]["in"] += bytes_in
            totals["bytes"]["out"] += bytes_out
        latencies = [conn.latency for conn in conns if conn.latency is not None]
        return {
            "connections": len(self._registry.connections),
            "users": len(self._registry.clients),
            "strangers": len(self._registry.strangers),
            "queued": sum(conn.lane.waiting for conn in conns),
            "send_buffer": sum(conn.buffered for conn in conns),
            "calls_running": sum(conn.serving for conn in conns),
            "calls_pending": sum(len(conn.pending) for conn in conns),
            "latency": {
                "mean": sum(latencies) / len(latencies) if latencies else None,
                "max": max(latencies, default=None),
            },
            **totals,
        }

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
        handler: type[WseHandler] = WseHandler
        if base is not None:
            if not (isinstance(base, type) and issubclass(base, RequestHandler)):
                raise TypeError(
                    f"base= takes a subclass of tornado.web.RequestHandler, not {base!r}"
                )
            handler = type("WseHandler", (WseHandler, base), {})
        return [
            URLSpec(script_path(path), ScriptHandler),
            URLSpec(path, handler, {"server": self}),
        ]

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
            TypeError: ``handlers`` is no list of rules.
        """
        asyncio.get_running_loop()
        http = self._http_server(path, ssl_options, xheaders, handlers)
        try:
            sockets = bind_sockets(port, host or "")
        except OSError as exc:
            _close_unbound(exc)
            raise
        self._serve(http, sockets)
        self.port = int(sockets[0].getsockname()[1])
        return self.port

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
        self._serve(self._http_server(path, ssl_options, xheaders, handlers), sockets)

    def _http_server(
        self,
        path: str,
        ssl_options: ssl.SSLContext | dict[str, Any] | None,
        xheaders: bool,
        handlers: Iterable[PageRule],
    ) -> HTTPServer:
        rules = with_pages(self.routes(path), handlers)
        return HTTPServer(
            Application(rules, log_function=lambda _handler: None),
            ssl_options=ssl_options,
            xheaders=xheaders,
            # For the request of the handshake; Tornado would wait for an hour.
            idle_connection_timeout=self.endpoint.limits.auth_timeout,
        )

    def _serve(self, http: HTTPServer, sockets: Iterable[socket.socket]) -> None:
        self._stopping = False
        http.add_sockets(sockets)
        self._http_servers.append(http)

    async def stop(self, grace: float = 0) -> None:
        """Stop: accept nobody, let running calls finish, close with 1012, wait for the sockets.

        Clients come back on 1012, to another server or to this one's successor.

        Args:
            grace: Seconds to wait for the calls that are being served.
        """
        self._stopping = True
        https, self._http_servers = self._http_servers, []
        for http in https:
            http.stop()
        if grace > 0:
            await self._calls_served(grace)
        for conn in tuple(self._open):
            conn.close(SERVICE_RESTART, Reason.SERVER_STOPPING)
        self._registry.let_all_leave()
        if self._open:
            # One future for all who stop at once, and none of them can cancel it for the others.
            if self._all_gone is None or self._all_gone.done():
                self._all_gone = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._all_gone)
        self.endpoint.dispatcher.cancel_calls()  # nobody waits for their answers any more
        for http in https:
            await http.close_all_connections()
        if not self._http_servers:  # nobody has called listen() meanwhile
            self.port = None

    async def _calls_served(self, grace: float) -> None:
        """Wait until no call is being served, or the grace is over."""
        served = asyncio.Event()
        notify = served.set
        self.endpoint.on_served.add(notify)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        try:
            while any(conn.serving for conn in self._open):
                served.clear()
                await asyncio.wait_for(served.wait(), deadline - loop.time())
        except asyncio.TimeoutError:
            pass
        finally:
            self.endpoint.on_served.discard(notify)

    # -- for connections

    def refusal(self, address: str) -> tuple[int, str] | None:
        """Why no further connection is taken now: close code and reason."""
        limits = self.endpoint.limits
        if self._stopping:
            return SERVICE_RESTART, Reason.SERVER_STOPPING.value
        if len(self._open) >= limits.max_connections:
            return TRY_AGAIN, Reason.SERVER_FULL.value
        if len(self._registry.strangers) >= limits.max_strangers:
            return TRY_AGAIN, Reason.SERVER_FULL.value
        if self._registry.strangers_from(address) >= limits.max_strangers_per_address:
            return TRY_AGAIN, Reason.SERVER_FULL.value
        return None

    def allows_origin(self, origin: str) -> bool:
        """Whether ``allowed_origins`` names it."""
        return "*" in self._origins or origin.rstrip("/").lower() in self._origins

    def arrived(self, conn: Connection) -> None:
        """A stranger is at the door."""
        self._open.add(conn)
        self._registry.add_stranger(conn)
        if self.connection_facade is not None:
            conn.handle = self.connection_facade(conn)

    def enter(self, conn: Connection) -> tuple[bool, list[Connection]]:
        """An accepted connection joins its user: whether the user is new, and whom it displaces."""
        client = self._registry.clients.get(conn.cid)
        if client is None:
            client = ClientIdentity(self, conn.cid)
            if self.identity_facade is not None:
                client.handle = self.identity_facade(client)
        conn.client = client
        joined = self._registry.add(client, conn)
        conns = list(client.own_conns.values())
        return joined, conns[: max(0, len(conns) - self.conn_per_user)]

    def announce(self, conn: Connection, *, joined: bool) -> None:
        """Tell that it is in."""
        news: list[tuple[Signal, tuple[Any, ...]]] = [(self.when.connected, (conn.handle,))]
        if joined:
            news.insert(0, (self.when.joined, (conn.client.handle, conn.meta)))
        # In one go: a handler of the first may drop the connection, which is told after the last.
        conn.lane.post_all(
            [(handler, args) for signal, args in news for handler in signal.take(*args)]
        )

    def leave(self, conn: Connection, code: int, reason: str) -> None:
        """A connection is over."""
        if conn.cid is not None:
            self._emit(self.when.disconnected, conn.lane, conn.handle, code, reason)
        self._registry.remove(conn, code, reason)

    def transport_gone(self, conn: Connection) -> None:
        """Its socket is closed, too."""
        self._open.discard(conn)
        for notify in self.endpoint.on_served:  # who has gone is waited for no longer
            notify()
        if not self._open and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _left(self, client: ClientIdentity, conn: Connection, code: int, reason: str) -> None:
        self._emit(self.when.left, conn.lane, client.handle, code, reason)

    def ignored(self, conn: Connection, type: Any, payload: Any) -> None:
        """A message that nobody takes."""
        self._emit(self.when.ignored, conn.lane, conn.handle, Message(type, payload))

    def report(self, error: WseError, conn: Connection | None = None) -> None:
        """Tell a problem that has no caller: the error signal, or the log."""
        handle = conn.handle if conn is not None else None
        handlers = self.when.error.take(error, handle)
        if not handlers:
            log_error(logger, error, conn if conn is not None else self)
        lane = conn.lane if conn is not None else self._own_lane()
        for handler in handlers:
            lane.post(handler, (error, handle), log_failure(logger, handler))

    def pack(self, type: Any, payload: Any) -> SharedMessage:
        """Pack a user's message once, for any number of devices.

        Raises:
            NotSerializable: The payload cannot be packed.
            ValueError: The type is empty or belongs to the library.
        """
        check_user_type(type, self.endpoint.roles, "send")
        return SharedMessage(*encode(self.endpoint.protocol, type, payload))

    def pack_internal(self, type: Any, payload: Any) -> tuple[bytes, bool]:
        """Pack a message of the library.

        Raises:
            NotSerializable: The payload cannot be packed.
        """
        return encode(self.endpoint.protocol, type, payload)

    def _emit(self, signal: Signal, lane: Lane, *args: Any) -> None:
        for handler in signal.take(*args):
            lane.post(handler, args)

    def _own_lane(self) -> Lane:
        if self._lane is None:
            self._lane = self.endpoint.dispatcher.lane(
                lambda handler, exc: logger.error("%r raised", handler, exc_info=exc)
            )
        return self._lane

    def __repr__(self) -> str:
        if self._stopping:
            state = "stopped"
        else:
            state = f"port={self.port}" if self.port is not None else "mounted"
        return (
            f"<{type(self).__name__} {state} users={len(self._registry.clients)} "
            f"connections={len(self._open)}>"
        )


def _origin_list(origins: Iterable[str] | None) -> list[str]:
    if origins is None:
        return []
    if isinstance(origins, str):
        raise TypeError("allowed_origins takes a list of origins, not one string")
    return list(origins)


def _close_unbound(exc: OSError) -> None:
    """Close the sockets of a ``bind_sockets`` that failed, which Tornado leaves to the garbage
    collector: until that comes, those that were bound keep their port."""
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is bind_sockets.__code__:
            found = trace.tb_frame.f_locals
            for item in (*found.get("sockets", ()), found.get("sock")):
                if isinstance(item, socket.socket):
                    item.close()
        trace = trace.tb_next
