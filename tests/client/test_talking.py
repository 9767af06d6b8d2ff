"""Calls, handlers and the send buffer of a client."""

import asyncio
import threading
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    ErrorCode,
    Limits,
    SendTimeout,
    Status,
    WseClient,
    WseError,
)

from ..support import (
    RawPeer,
    RawServer,
    let_in,
    seconds,
    serve,
    use,
    wait_until,
)
from ..support.loops import client_of, connected, listening


async def client_sync(server: AsyncWseServer, client: AsyncWseClient) -> None:
    """Everything the server has sent before is here and handled when this returns."""
    if "sync" not in server._hub.shared.procedures:
        server.register("sync", lambda conn, payload: None)
    await client.call("sync")


async def test_a_cancelled_call_is_forgotten() -> None:
    async with listening() as server, connected(server) as client:
        gate = asyncio.Event()

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> int:
            await gate.wait()
            return 1

        call = asyncio.ensure_future(client.call("slow"))
        await client_sync(server, client)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client._connector.conn is not None
        assert len(client._connector.conn.pending) == 0
        gate.set()
        await client_sync(server, client)  # its late answer is dropped in silence
        assert client.status is Status.READY


async def test_a_handler_may_call_the_other_end_while_it_runs() -> None:
    async with listening() as server, connected(server) as client:
        server.register("add", lambda conn, p: p + 1)
        results: asyncio.Queue[Any] = asyncio.Queue()

        @client.channel.on("go")
        async def go(payload: Any) -> None:
            results.put_nowait(await client.call("add", payload))

        server.broadcast("go", 1)
        assert await results.get() == 2


def test_a_blocking_send_waits_for_room_and_then_gives_up_in_time() -> None:
    gate = threading.Event()
    got = []

    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        gate.wait(10)
        while True:
            message = peer.recv_message()
            got.append(message[1][0])

    limits = Limits(max_send_buffer=500_000)
    with RawServer(script) as server, WseClient(server.url, limits=limits) as client:
        client.connect("me")
        sent = 0
        with pytest.raises(SendTimeout, match="not taken within"):
            while sent < 1000:
                client.send("bulk", [sent, "x" * 100_000], timeout=0.2)
                sent += 1
        assert client.stats()["send_buffer"] <= 600_000
        gate.set()
        client.send("bulk", [sent, "the end"], timeout=seconds(10))
        wait_until(lambda: len(got) == sent + 1)
        assert got == list(range(sent + 1))


async def test_sending_past_the_buffer_is_refused_until_it_drains() -> None:
    let_go = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        let_go.wait(seconds(20))
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url, limits=Limits(max_send_buffer=200_000))
        await client.connect("alice")
        sent = 0
        with pytest.raises(WseError, match=r"await client\.drain\(\) first") as error:
            for _ in range(2000):
                client.send("block", "x" * 50_000)
                sent += 1
        assert error.value.code == ErrorCode.SEND_BUFFER_FULL
        assert client.status is Status.READY
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.drain(), 0.05)
        let_go.set()
        await client.drain()
        client.send("block", "x")
        await client.close()


def test_a_client_takes_messages_at_any_rate(kind: str) -> None:
    got: list[int] = []
    limits = Limits(message_rate=1, message_burst=1)
    with serve("blocking") as served, use(kind, served.url, limits=limits) as used:
        used.client.channel.on("n", got.append)
        used.connect("ann")
        for number in range(100):
            served.server.broadcast("n", number)
        wait_until(lambda: got == list(range(100)))
