"""The Tornado way: Tornado's own WebSocket reads and writes the frames.

Used for TLS and compressed connections, and everywhere before a bare socket takes over. It must
not know about users, calls or handlers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketHandler

from .base import Receiver, Transport, cut_reason

__all__ = ["TornadoClientTransport", "TornadoServerTransport"]

ABNORMAL = 1006  # RFC 6455 7.1.5: the connection ended without a close frame


class _TornadoTransport(Transport):
    """What server and client share; ``_ws`` is Tornado's object."""

    __slots__ = (
        "_buffered",
        "_close_timeout",
        "_closing",
        "_cutter",
        "_lost",
        "_resumed",
        "_stream",
        "_ws",
        "receiver",
    )

    def __init__(
        self,
        ws: WebSocketHandler | WebSocketClientConnection,
        stream: IOStream,
        receiver: Receiver,
        close_timeout: float,
    ) -> None:
        self.bytes_in = self.bytes_out = 0
        self.congested = False
        self._ws = ws
        self._stream = stream
        self.receiver = receiver
        self._close_timeout = close_timeout
        self._buffered = 0
        self._closing = False
        self._lost = False
        self._cutter: asyncio.TimerHandle | None = None
        self._resumed: asyncio.Future[None] | None = None
        stream.set_nodelay(True)

    @property
    def buffered(self) -> int:
        return self._buffered

    def send(self, payload: bytes, binary: bool) -> None:
        if self._closing:
            return
        try:
            written = self._ws.write_message(payload, binary)
        except (WebSocketClosedError, StreamClosedError):
            return
        size = len(payload)
        self._buffered += size
        self.congested = True
        self.bytes_out += size

        def sent(future: asyncio.Future[None]) -> None:
            self._buffered -= size
            if not future.cancelled():
                future.exception()  # a closed stream is told by connection_lost
            self.congested = self._buffered > 0
            if not self._buffered and not self._lost:
                self.receiver.send_buffer_drained()

        written.add_done_callback(sent)

    def ping(self, payload: bytes) -> None:
        if not self._closing:
            try:
                self._ws.ping(payload)
            except (WebSocketClosedError, StreamClosedError):
                pass

    def pause_reading(self) -> None:
        if self._resumed is None and not self._closing:
            self._resumed = asyncio.get_running_loop().create_future()

    def resume_reading(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    def close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        self.resume_reading()
        # Tornado reads the peer's close frame only after what came before it, and waits for as
        # long as that takes; this bounds it.
        self._cutter = asyncio.get_running_loop().call_later(self._close_timeout, self.abort)
        try:
            self._ws.close(code, cut_reason(reason))
        except (WebSocketClosedError, StreamClosedError):
            self.abort()

    def abort(self) -> None:
        self._closing = True
        self.resume_reading()
        self._stream.close()

    def _connection_lost(self, code: int | None, reason: str | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self.resume_reading()
        if self._cutter is not None:
            self._cutter.cancel()
        self.receiver.connection_lost(ABNORMAL if code is None else code, reason or "")


class TornadoServerTransport(_TornadoTransport):
    """Over a ``WebSocketHandler``, which feeds it."""

    __slots__ = ()

    def feed(self, data: str | bytes) -> asyncio.Future[None] | None:
        """Take a message; the future, if any, is what Tornado waits for before it reads on."""
        self.bytes_in += len(data)
        if not self._closing:
            self.receiver.message_received(data)
        return self._resumed

    def lost(self, code: int | None, reason: str | None) -> None:
        """Tornado says the connection is over."""
        self._connection_lost(code, reason)


class TornadoClientTransport(_TornadoTransport):
    """Over a ``WebSocketClientConnection``.

    Messages are pulled: Tornado's queue holds one, so that not pulling stops the reading.
    """

    __slots__ = ("_task",)

    _ws: WebSocketClientConnection

    def __init__(
        self, ws: WebSocketClientConnection, receiver: Receiver, close_timeout: float
    ) -> None:
        assert ws.protocol is not None and ws.protocol.stream is not None
        super().__init__(ws, ws.protocol.stream, receiver, close_timeout)
        hooks: Any = ws  # Tornado calls these two and has no other way to listen to them
        hooks.on_pong = receiver.pong_received
        hooks.on_ping = lambda _data: receiver.sign_of_life()
        self._task = asyncio.get_running_loop().create_task(self._pull())

    async def _pull(self) -> None:
        ws = self._ws
        try:
            while (data := await ws.read_message()) is not None:
                self.bytes_in += len(data)
                if not self._closing:
                    self.receiver.message_received(data)
                if self._resumed is not None:
                    await self._resumed
        finally:
            self._stream.close()
            ws.close()  # forgets its protocol, or it warns of an unclosed connection
            self._connection_lost(ws.close_code, ws.close_reason)
