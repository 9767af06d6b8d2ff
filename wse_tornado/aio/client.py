"""The client on the caller's loop."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ..backoff import Backoff
from ..core.connector import Connector, Generation
from ..core.dispatch import LoopDispatcher
from ..core.shared import check_closing, ignore_transport
from ..errors import CloseCode, ConnectionNotReady, Reason
from ..faces import ClientFace
from ..limits import Limits
from ..protocol import Message, Protocol

__all__ = ["AsyncWseClient"]


class AsyncWseClient(ClientFace):
    """An authenticated WebSocket client, on the Tornado loop it is used on.

    Its methods are for that loop only, except for subscribing and registering, which any thread
    may do. Handlers run on the loop, too: those of one client in order, and a coroutine function
    holds up the next.

    The arguments are those of `WseClient`, without ``dispatch`` and ``loop``.

    Raises:
        TypeError, ValueError: An argument makes no sense; the message says which.
    """

    def __init__(
        self,
        url: str | Callable[[], Any],
        *,
        timeout: float = 20,
        reconnect: bool | Backoff = False,
        protocol: Protocol | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_options: ssl.SSLContext | dict[str, Any] | None = None,
        limits: Limits | None = None,
        expose_errors: bool = False,
        generation: Generation = "current",
        compression: bool | Mapping[str, Any] = False,
        transport: Any = None,
    ) -> None:
        ignore_transport(transport)
        self._connector = Connector(
            dispatcher=LoopDispatcher(),
            inline=True,
            url=url,
            timeout=timeout,
            reconnect=reconnect,
            protocol=protocol,
            headers=headers,
            ssl_options=ssl_options,
            limits=limits,
            expose_errors=expose_errors,
            generation=generation,
            compression=compression,
        )

    async def connect(
        self, identity: Any = None, meta: Any = None, *, timeout: float | None = None
    ) -> Any:
        """As `WseClient.connect`, awaited. Cancelling it closes the client."""
        return await self._connector.connect(identity, meta, timeout)

    async def jump(
        self,
        url: str | Callable[[], Any],
        identity: Any = None,
        meta: Any = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """As `WseClient.jump`, awaited."""
        return await self._connector.jump(url, identity, meta, timeout)

    async def close(
        self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = Reason.BY_CLIENT
    ) -> None:
        """As `WseClient.close`, awaited."""
        check_closing(code, reason)
        await self._connector.close(code, reason)

    def drop(self, reason: str = Reason.BY_CLIENT) -> None:
        """Close with 1000 and ``reason`` without waiting for the socket."""
        self._connector.stop(CloseCode.NORMAL_CLOSURE, reason)

    def send(self, type: Any, payload: Any = None) -> None:
        """Send a message to the server. It never waits; see `drain`.

        Raises:
            ConnectionNotReady: There is no connection.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WseError: ``wse.client.send-buffer-full``: ``Limits.max_send_buffer`` bytes wait.
        """
        self._connector.send(type, payload)

    async def drain(self) -> None:
        """Wait until less than half of ``Limits.max_send_buffer`` waits to be sent."""
        await self._connector.room_for(0)

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """As `WseClient.call`, awaited. Cancelling it forgets the call."""
        return await self._connector.call(name, payload, timeout)

    async def receive(self, *, timeout: float | None = None) -> Message:
        """As `WseClient.receive`, awaited."""
        return await self._connector.receive(timeout)

    async def wait_for(
        self,
        type: Any,
        predicate: Callable[[Any], bool] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """As `WseClient.wait_for`, awaited."""
        return await self._connector.wait_for(type, predicate, timeout)

    async def wait_ready(self, *, timeout: float | None = None) -> None:
        """As `WseClient.wait_ready`, awaited."""
        await self._connector.wait_ready(timeout)

    async def wait(self, *, timeout: float | None = None) -> bool:
        """As `WseClient.wait`, awaited."""
        return await self._connector.wait(timeout)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages, as `receive` gives them, until the connection is over for good."""
        while True:
            try:
                message = await self.receive()
            except ConnectionNotReady:
                return
            yield message

    async def __aenter__(self) -> AsyncWseClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncWseClient {self._connector.status} {self._connector.where}>"
