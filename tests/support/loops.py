"""Tests that are coroutine functions: their loop, and servers and clients on it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from wse_tornado import AsyncWseClient, AsyncWseServer

from .servers import accept_all
from .timing import seconds


async def on_clean_loop(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Run a test, which must leave no task and no exception that nobody took."""
    troubles: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: troubles.append(context))
    await function(**arguments)
    deadline = loop.time() + seconds(5)
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        assert loop.time() < deadline, f"tasks were left behind: {left}"
        await asyncio.wait(left, timeout=seconds(1))
    assert not troubles


class Events(list[tuple[Any, ...]]):
    """The signals of a server or a client in the order they came, and waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self._came = asyncio.Event()

    def append(self, event: tuple[Any, ...]) -> None:
        super().append(event)
        self._came.set()

    def names(self) -> list[str]:
        return [event[0] for event in self]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self if event[0] == name]

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait until something holds; it is looked at whenever a signal comes."""
        deadline = asyncio.get_running_loop().time() + seconds(10)
        while not condition():
            self._came.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._came.wait(), left)
            except asyncio.TimeoutError:
                raise AssertionError(f"{what or 'it'} did not come; there were {self}") from None

    async def wait(self, name: str, count: int = 1) -> tuple[Any, ...]:
        """Wait for a signal, or for the ``count``-th of its name: its arguments."""
        await self.until(lambda: len(self.of(name)) >= count, name)
        return self.of(name)[count - 1]


def record_server(server: AsyncWseServer) -> Events:
    """Keep the signals of a server."""
    events = Events()
    add = events.append
    server.when.joined(lambda client, meta: add(("joined", client.cid, meta)))
    server.when.left(lambda client, code, reason: add(("left", client.cid, code, reason)))
    server.when.connected(lambda conn: add(("connected", conn.cid)))
    server.when.disconnected(
        lambda conn, code, reason: add(("disconnected", conn.cid, code, reason))
    )
    server.when.ignored(lambda conn, message: add(("ignored", message.type, message.payload)))
    server.when.error(lambda error, conn: add(("error", error)))
    return events


def record_client(client: AsyncWseClient) -> Events:
    """Keep the signals of a client."""
    events = Events()
    add = events.append
    client.when.connected(lambda: add(("connected",)))
    client.when.ready(lambda welcome: add(("ready", welcome)))
    client.when.closed(lambda code, reason: add(("closed", code, reason)))
    client.when.updated(lambda status: add(("updated", str(status))))
    client.when.ignored(lambda message: add(("ignored", message.type, message.payload)))
    client.when.error(lambda error: add(("error", error)))
    return events


@asynccontextmanager
async def listening(identify: Any = accept_all, **options: Any) -> AsyncIterator[AsyncWseServer]:
    """A server on a free port of 127.0.0.1."""
    server = AsyncWseServer(identify=identify, **options)
    server.listen(0, "127.0.0.1")
    try:
        yield server
    finally:
        await server.stop()


def url_of(server: AsyncWseServer) -> str:
    """Where it listens."""
    return f"ws://127.0.0.1:{server.port}"


@asynccontextmanager
async def connected(
    server: AsyncWseServer, identity: Any = "alice", meta: Any = None, **options: Any
) -> AsyncIterator[AsyncWseClient]:
    """A client of ours that is in."""
    options.setdefault("timeout", seconds(10))
    client = AsyncWseClient(url_of(server), **options)
    async with client:
        await client.connect(identity, meta)
        yield client


def client_of(where: Any, **options: Any) -> AsyncWseClient:
    """A client of a server or a URL, not connected."""
    options.setdefault("timeout", seconds(10))
    return AsyncWseClient(where if isinstance(where, str) else url_of(where), **options)


async def wait_for(condition: Callable[[], Any], events: Any) -> None:
    """Wait for something on this loop that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + seconds(5)
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, events
        await asyncio.sleep(0.005)
