"""Tornado's request handler: the handshake, after which the library's own WebSocket takes over."""

from __future__ import annotations

from typing import Any

from tornado.iostream import IOStream, SSLIOStream
from tornado.websocket import WebSocketHandler

from ..core.hub import Hub
from ..errors import CloseCode, Reason, printable
from ..transport.base import Receiver
from ..transport.deflate import Agreement, agree
from ..transport.pipes import open_pipe
from ..transport.websocket import WebSocket

__all__ = ["WseHandler"]


class WseHandler(WebSocketHandler):
    """One WebSocket of a server; made by ``routes``."""

    def initialize(self, hub: Hub) -> None:
        self._hub = hub
        self._deflate: Agreement | None = None

    @property
    def ping_interval(self) -> float | None:
        """Tornado's own pings stay off: they would close with 1000 (see `Limits.heartbeat`)."""
        return 0

    def check_origin(self, origin: str) -> bool:
        """Tornado's rule, or one of ``allowed_origins``."""
        return self._hub.allows_origin(origin) or super().check_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """The protocol's name, where the client offered it. Compression is agreed on here, too:
        Tornado asks before it sends the headers."""
        if self._hub.compression is not None:
            offers = self.request.headers.get("Sec-WebSocket-Extensions", "")
            accepted = agree(offers, self._hub.compression)
            if accepted is not None:
                answer, self._deflate = accepted
                self.set_header("Sec-WebSocket-Extensions", answer)
        name = self._hub.shared.protocol.name
        return name if name in subprotocols else None

    async def open(self, *args: str, **kwargs: str) -> None:
        """Begin a connection. This lasts until its end: Tornado reads nothing before it returns,
        and finds the stream closed afterwards."""
        hub = self._hub
        assert self.ws_connection is not None
        stream = self.ws_connection.stream
        assert stream is not None
        refusal = hub.refusal(self.request.remote_ip or "")
        if refusal is None and self.selected_subprotocol != hub.shared.protocol.name:
            refusal = CloseCode.NORMAL_CLOSURE, Reason.PROTOCOL_ERR.value
        if refusal is not None:
            address = printable(self.request.remote_ip or "")
            hub.shared.logger.info("refused %s: %s %s", address, *refusal)
        receiver: Receiver
        if refusal is None:
            conn = hub.accept(
                remote_addr=self.request.remote_ip or "",
                request=self.request,
                handler=self,
                certificate=_certificate_of(stream),
            )
            receiver = conn
        else:
            receiver = _Refused()
        pipe, early = open_pipe(stream)
        transport = WebSocket(
            pipe,
            receiver,
            is_client=False,
            max_message_size=hub.shared.limits.max_message_size,
            close_timeout=hub.shared.limits.close_timeout,
            io=hub.shared.dispatcher.io,
            deflate=self._deflate,
        )
        if refusal is None:
            conn.attach(transport)
        else:
            transport.close(*refusal)
        transport.start(early)
        await transport.finished


class _Refused:
    """Receives what a client says that is not let in, until it has answered the close frame."""

    def message_received(self, data: str | bytes) -> None:
        pass

    def pong_received(self, payload: bytes) -> None:
        pass

    def send_buffer_drained(self) -> None:
        pass

    def connection_lost(self, code: int, reason: str) -> None:
        pass


def _certificate_of(stream: IOStream) -> dict[str, Any] | None:
    """The certificate of a client that had to show one."""
    if not isinstance(stream, SSLIOStream):
        return None
    certificate: dict[str, Any] | None = stream.socket.getpeercert()
    return certificate or None
