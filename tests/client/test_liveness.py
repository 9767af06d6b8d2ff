"""Heartbeats of a client, and the size of what it takes."""

import asyncio
import threading
from typing import Any

from wse_tornado import (
    Limits,
    Reason,
    Status,
)

from ..support import (
    RawPeer,
    RawServer,
    let_in,
    seconds,
    stay,
)
from ..support.loops import client_of, record_client
from ..support.peer import PING


async def in_thread(fn: Any, *args: Any) -> Any:
    return await asyncio.to_thread(fn, *args)


async def test_a_server_that_goes_silent_is_left_with_1006() -> None:
    let_go = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        let_go.wait(seconds(20))

    with RawServer(script) as server:
        limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.1))
        client = client_of(server.url, limits=limits)
        events = record_client(client)
        await client.connect("alice")
        code, reason = await events.wait("closed")
        assert (code, reason) == (1006, Reason.HEARTBEAT)
        assert client.status is Status.OFFLINE
        await client.close()
        let_go.set()


async def test_a_server_that_answers_pings_is_kept() -> None:
    pinged = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        while len(peer.pings) < 4:
            opcode, payload = peer.recv_frame()
            assert opcode == 9
            peer.pings.append(payload)
            peer.send_frame(10, payload)
        pinged.set()
        peer.wait_closed()

    with RawServer(script) as server:
        limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
        client = client_of(server.url, limits=limits)
        await client.connect("alice")
        assert await in_thread(pinged.wait, seconds(10))
        assert client.status is Status.READY
        assert client.latency is not None
        assert client.latency >= 0
        await client.close()


async def test_a_pong_nobody_asked_for_is_no_latency() -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_frame(10, b"unasked")
        peer.send("mark")
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url)
        await client.connect("alice")
        await client.wait_for("mark", timeout=seconds(5))
        assert client.latency is None
        await client.close()


async def test_pings_of_the_server_count_as_life() -> None:
    """It answers none of ours; unheard, the third of them would never come."""
    enough = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        for _ in range(3):
            while peer.recv_frame()[0] != PING:
                pass
            peer.send_frame(PING, b"alive")
        enough.set()
        stay(peer)

    with RawServer(script) as server:
        limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.2))
        client = client_of(server.url, limits=limits)
        events = record_client(client)
        await client.connect("alice")
        assert await in_thread(enough.wait, seconds(10))
        assert events.of("closed") == []
        await client.close()


async def test_a_message_that_is_too_large_ends_the_connection_with_1009() -> None:
    got: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("big", "x" * 5000)
        got.append(peer.wait_closed())

    with RawServer(script) as server:
        client = client_of(server.url, limits=Limits(max_message_size=2000))
        events = record_client(client)
        await client.connect("alice")
        assert (await events.wait("closed"))[0] == 1009
        await client.close()
    assert got[0][0] == 1009
