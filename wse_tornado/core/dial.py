"""Reaching a server: Tornado's handshake, what takes over after it, and which failures pass."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httputil import HTTPHeaders
from tornado.websocket import WebSocketClientConnection, websocket_connect

from ..errors import CloseCode, ConnectionFailed, ConnectTimeout, WseError, origin_of
from ..transport.deflate import agreed
from ..transport.pipes import open_pipe
from ..transport.resolver import DaemonResolver
from ..transport.websocket import WebSocket
from .connection import BaseConnection
from .shared import Shared

__all__ = ["PASSING_CODES", "Dialer", "check_url", "is_passing"]

# Closings after which coming back makes sense (docs/wire.md 5); 1000 is final whatever its reason.
PASSING_CODES = frozenset(
    {
        CloseCode.NO_STATUS_RCVD,
        CloseCode.ABNORMAL_CLOSURE,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.BAD_GATEWAY,
        CloseCode.JUMP,
    }
)
PASSING_HTTP = frozenset({408, 429, 500, 502, 503, 504})


class Dialer:
    """Opens the sockets of one client.

    Args:
        shared: What the client's connections share.
        headers: Further HTTP headers of the handshake.
        ssl_options: For ``wss://``.
        compression: Tornado's options for permessage-deflate; None offers none.
        threads: Whether threads other than the loop's send, too.
    """

    def __init__(
        self,
        shared: Shared[Any, Any],
        *,
        headers: dict[str, str],
        ssl_options: ssl.SSLContext | dict[str, Any] | None,
        compression: dict[str, Any] | None,
        threads: bool,
    ) -> None:
        self._shared = shared
        self._headers = headers
        self._ssl_options = ssl_options
        self._compression = compression
        self._threads = threads

    async def open(self, url: str, seconds: float) -> WebSocketClientConnection:
        """Do the handshake.

        Raises:
            ConnectTimeout: It took longer than so many seconds.
            ConnectionFailed: The server cannot be reached, or is no WebSocket server.
        """
        request = HTTPRequest(
            url,
            headers=HTTPHeaders(self._headers),
            connect_timeout=seconds,
            request_timeout=seconds,
            ssl_options=self._ssl_options,
        )
        connecting = asyncio.ensure_future(
            websocket_connect(
                request,
                subprotocols=[self._shared.protocol.name],
                max_message_size=self._shared.limits.max_message_size,
                compression_options=self._compression,
                resolver=DaemonResolver(),
            )
        )
        connecting.add_done_callback(_stop_tornado)
        # Tornado cannot be told to stop connecting: what nobody waits for any more is closed as
        # soon as it is open. Its own time-outs bound that.
        try:
            await asyncio.wait({connecting})
        except asyncio.CancelledError:
            connecting.add_done_callback(_close_late)
            raise
        try:
            return connecting.result()
        except HTTPClientError as exc:
            if exc.code == 599:
                raise ConnectTimeout(None, {}, f"{url} did not answer in time") from exc
            raise ConnectionFailed(
                None,
                {"status": exc.code},
                f"{url} answered with HTTP {exc.code} {exc.message or ''}".rstrip()
                + " instead of a WebSocket",
            ) from exc
        except (OSError, ssl.SSLError) as exc:
            raise ConnectionFailed(
                None, {"origin": origin_of(exc)}, f"cannot reach {url}: {exc}"
            ) from exc

    async def attach(self, ws: WebSocketClientConnection, conn: BaseConnection) -> None:
        """Give the connection its transport.

        Raises:
            ConnectionFailed: The server agreed to a compression that was not offered.
        """
        shared = self._shared
        protocol, ws.protocol = ws.protocol, None  # or Tornado warns of an unclosed connection
        assert protocol is not None and protocol.stream is not None
        deflate = None
        try:
            if self._compression is not None:
                answer = HTTPHeaders(ws.headers or {}).get("Sec-WebSocket-Extensions", "")
                deflate = agreed(answer, self._compression)
        except ValueError as exc:
            protocol.stream.close()
            conn.connection_lost(CloseCode.ABNORMAL_CLOSURE, "")
            raise ConnectionFailed(None, {"origin": origin_of(exc)}, str(exc)) from exc
        pipe, early = open_pipe(protocol.stream, shared=self._threads)
        transport = WebSocket(
            pipe,
            conn,
            is_client=True,
            max_message_size=shared.limits.max_message_size,
            close_timeout=shared.limits.close_timeout,
            io=shared.dispatcher.io,
            deflate=deflate,
        )
        conn.attach(transport)
        transport.start(early)


def _stop_tornado(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    """End Tornado's loop over the frames before it has read any: it begins in the next turn."""
    if not connecting.cancelled() and connecting.exception() is None:
        protocol = connecting.result().protocol
        if protocol is not None:
            protocol.client_terminated = True


def _close_late(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


def is_passing(error: WseError) -> bool:
    """Whether another attempt may end better: the place where that is decided."""
    if isinstance(error, ConnectTimeout):
        return True
    if isinstance(error, ConnectionFailed):
        status = error.details.get("status")
        if status is not None:
            return status in PASSING_HTTP
        code = error.details.get("code")
        if code is not None:
            return code in PASSING_CODES
        return isinstance(error.__cause__, OSError) and not isinstance(
            error.__cause__, ssl.SSLCertVerificationError
        )
    return False


def check_url(url: Any) -> None:
    """Refuse what is no WebSocket URL.

    Raises:
        ValueError: It is not ``ws://host`` or ``wss://host``.
    """
    example = "such as ws://localhost:4200"
    if not isinstance(url, str):
        raise ValueError(f"the URL of a server is a string {example}, not {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"{url!r} is not a URL {example}: {exc}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError(f"{url!r} is not a WebSocket URL {example}")
