"""Tornado's request handler: the handshake, and the choice of the transport."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from tornado.websocket import WebSocketHandler

from ..errors import Reason
from ..transport.tornado_ws import TornadoServerTransport
from .connection import Connection
from .link import NORMAL

if TYPE_CHECKING:
    from .server import AsyncWseServer

__all__ = ["WseHandler"]


class WseHandler(WebSocketHandler):
    """One WebSocket of an `AsyncWseServer`; made by ``routes``."""

    def initialize(self, server: AsyncWseServer) -> None:
        self._server = server
        self._transport: TornadoServerTransport | None = None

    @property
    def max_message_size(self) -> int:
        """Bytes of the largest message (read by Tornado)."""
        return self._server.endpoint.limits.max_message_size

    @property
    def ping_interval(self) -> float | None:
        """Tornado's own pings stay off: they would close with 1000 (see `Limits.heartbeat`)."""
        return 0

    def check_origin(self, origin: str) -> bool:
        """Tornado's rule, or one of ``allowed_origins``."""
        return self._server.allows_origin(origin) or super().check_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """The protocol's name, where the client offered it."""
        name = self._server.endpoint.protocol.name
        return name if name in subprotocols else None

    def get_compression_options(self) -> dict[str, Any] | None:
        """What the server's ``compression`` says."""
        return self._server.compression

    def open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
        server = self._server
        refusal = server.refusal()
        if refusal is not None:
            self.close(*refusal)
        elif self.selected_subprotocol != server.endpoint.protocol.name:
            self.close(NORMAL, Reason.PROTOCOL_ERR.value)
        else:
            assert self.ws_connection is not None and self.ws_connection.stream is not None
            conn = Connection(
                server,
                remote_addr=self.request.remote_ip or "",
                request=self.request,
                handler=self,
            )
            server.arrived(conn)
            self._transport = TornadoServerTransport(
                self, self.ws_connection.stream, conn, server.endpoint.limits.close_timeout
            )
            conn.attach(self._transport)
        return None

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
