"""Tornado's request handler: the handshake, and the choice of the transport."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any

from tornado.iostream import IOStream, SSLIOStream
from tornado.websocket import WebSocketHandler

from ..core.hub import Hub
from ..core.server_connection import ServerConnection
from ..errors import CloseCode, Reason
from ..transport.bare import bare_transport, take_socket
from ..transport.tornado_ws import TornadoServerTransport

__all__ = ["WseHandler"]


class WseHandler(WebSocketHandler):
    """One WebSocket of a server; made by ``routes``."""

    def initialize(self, hub: Hub) -> None:
        self._hub = hub
        self._transport: TornadoServerTransport | None = None

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message (read by Tornado)."""
        return self._hub.shared.limits.max_message_size

    @property
    def ping_interval(self) -> float | None:
        """Tornado's own pings stay off: they would close with 1000 (see `Limits.heartbeat`)."""
        return 0

    def check_origin(self, origin: str) -> bool:
        """Tornado's rule, or one of ``allowed_origins``."""
        return self._hub.allows_origin(origin) or super().check_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """The protocol's name, where the client offered it."""
        name = self._hub.shared.protocol.name
        return name if name in subprotocols else None

    def get_compression_options(self) -> dict[str, Any] | None:
        """What the server's ``compression`` says."""
        return self._hub.compression

    async def open(self, *args: str, **kwargs: str) -> None:
        """Begin a connection. On a bare socket this lasts until its end: Tornado reads nothing
        before it returns."""
        hub = self._hub
        refusal = hub.refusal(self.request.remote_ip or "")
        if refusal is not None:
            self.close(*refusal)
            return
        if self.selected_subprotocol != hub.shared.protocol.name:
            self.close(CloseCode.NORMAL_CLOSURE, Reason.PROTOCOL_ERR.value)
            return
        assert self.ws_connection is not None
        stream = self.ws_connection.stream
        assert stream is not None
        conn = hub.accept(
            remote_addr=self.request.remote_ip or "",
            request=self.request,
            handler=self,
            certificate=_certificate_of(stream),
        )
        taken = take_socket(stream) if self._may_go_bare() else None
        if taken is not None:
            await self._run_bare(conn, *taken)
            return
        self._transport = TornadoServerTransport(
            self, stream, conn, hub.shared.limits.close_timeout
        )
        conn.attach(self._transport)

    def _may_go_bare(self) -> bool:
        """Whether nothing between the socket and the messages is Tornado's to do."""
        hub = self._hub
        compresses = (
            hub.compression is not None and "Sec-WebSocket-Extensions" in self.request.headers
        )
        return hub.shared.transport == "auto" and not compresses

    async def _run_bare(self, conn: ServerConnection, sock: socket.socket, early: bytes) -> None:
        shared = self._hub.shared
        loop = asyncio.get_running_loop()
        transport = bare_transport(
            sock,
            conn,
            is_client=False,
            max_message_size=shared.limits.max_message_size,
            close_timeout=shared.limits.close_timeout,
            io=shared.dispatcher.io,
            early=early,
        )
        # Before the socket is read: its first message may come before the next line is reached.
        conn.attach(transport)
        try:
            await loop.connect_accepted_socket(lambda: transport, sock)
        except OSError:  # gone already
            sock.close()
            conn.connection_lost(CloseCode.ABNORMAL_CLOSURE, "")
            return
        await transport.finished

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        return self._transport.feed(message) if self._transport is not None else None

    def on_ping(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.receiver.sign_of_life()

    def on_pong(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.receiver.pong_received(data)

    def on_close(self) -> None:
        if self._transport is not None:
            self._transport.lost(self.close_code, self.close_reason)


def _certificate_of(stream: IOStream) -> dict[str, Any] | None:
    """The certificate of a client that had to show one."""
    if not isinstance(stream, SSLIOStream):
        return None
    certificate: dict[str, Any] | None = stream.socket.getpeercert()
    return certificate or None
