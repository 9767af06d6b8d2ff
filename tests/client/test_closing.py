"""Closing, dropping, and what a close ends."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    ConnectionFailed,
    ConnectionNotReady,
    ReceiveTimeout,
    WseError,
)

from ..support import (
    QUICK,
    RawPeer,
    RawServer,
    beside,
    let_in,
    outcome,
    seconds,
    serve,
    stay,
    use,
    wait_until,
)
from ..support.loops import client_of, connected, listening


async def test_closing_wakes_everybody_who_waits() -> None:
    async with listening() as server, connected(server) as client:
        hanging = [
            asyncio.ensure_future(client.receive()),
            asyncio.ensure_future(client.wait_for("a")),
            asyncio.ensure_future(client.wait()),
        ]
        await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*hanging, return_exceptions=True)
        assert isinstance(results[0], ConnectionNotReady)
        assert isinstance(results[1], ConnectionNotReady)
        assert results[2] is True


async def test_closing_in_the_very_turn_in_which_an_attempt_fails_loses_no_exception() -> None:
    for turns in range(12):
        client = client_of("ws://127.0.0.1:9")
        connecting = asyncio.ensure_future(client.connect(lambda: 1 / 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises((ConnectionFailed, asyncio.CancelledError)):
            connecting.cancel()
            await connecting
    gc.collect()  # an exception that nobody took would be told now


def test_close_ends_a_connect_that_is_under_way(flavour: str) -> None:
    met = threading.Event()

    def script(peer: RawPeer) -> None:
        peer.recv()
        met.set()
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        connecting = beside(used.connect, "ann", timeout=seconds(30))
        assert met.wait(seconds(5))
        used.close()
        with pytest.raises(ConnectionFailed, match="closed while it was connecting"):
            outcome(connecting)
        used.has_status("OFFLINE")


def test_drop_closes_with_its_reason_without_waiting(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        used.connect("ann")
        used.do(used.client.drop, "so long")
        used.has_status("OFFLINE")
        used.happened("closed", 1000, "so long")
        served.happened("disconnected", "ann", 1000, "so long")


def test_close_stops_a_connect_that_tries_again_and_again(flavour: str) -> None:
    asked: list[str] = []
    target = "ws://127.0.0.1:1"

    def url() -> str:
        asked.append(target)
        return target

    def script(peer: RawPeer) -> None:
        let_in(peer)
        stay(peer)

    with RawServer(script) as server, use(flavour, url, reconnect=QUICK) as used:
        welcome = beside(used.connect, "ann", timeout=seconds(30))
        wait_until(lambda: len(asked) > 2)
        used.close()
        with pytest.raises((ConnectionFailed, ConnectionNotReady)):
            outcome(welcome)
        assert str(used.client.status) == "OFFLINE"
        target = server.url
        used.connect("ann")
        with pytest.raises(ReceiveTimeout):  # many times the longest back-off
            used.do(used.client.receive, timeout=0.3)
        assert asked.count(server.url) == 1
        assert len(server.peers) == 1


@pytest.mark.parametrize(
    ("code", "reason"), [(70000, "x"), (1006, "x"), (999, "x"), (1000, None), ("1000", "x")]
)
def test_a_close_that_cannot_be_sent_is_refused_and_can_be_repeated(
    flavour: str, code: Any, reason: Any
) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        used.connect("anna")
        with pytest.raises((ValueError, TypeError)):
            used.do(used.client.close, code, reason)
        used.send("hello", 1)
        served.happened("ignored", "hello", 1)
        used.close()
        wait_until(lambda: used.closings() == [(1000, "wse.by-client")])


def test_errors_of_a_closed_client_do_not_grow() -> None:
    async def main() -> None:
        client = AsyncWseClient("ws://127.0.0.1:1")
        with pytest.raises(ConnectionFailed):
            await client.connect()
        depths = []
        for _ in range(20):
            with pytest.raises(WseError) as caught:
                await client.receive()
            depths.append(len(caught.traceback))
        assert depths[-1] == depths[0]

    asyncio.run(main())
