"""Every bound at its edge: at it all is well, above it what `Limits` says happens.

The size of messages is tested in ``transport/test_rfc6455.py``.
"""

import asyncio
import contextlib
import json
import threading

import pytest

from wse_tornado import (
    AsyncWseClient,
    ErrorCode,
    Limits,
    RpcError,
    RpcFailed,
    SendTimeout,
    WseClient,
)
from wse_tornado.aio.link import TokenBucket

from .support import RawPeer, RawServer, seconds, serve, wait_until
from .support.peer import TEXT


def closed_with(served, event: str = "disconnected") -> tuple:
    """Code and reason of the one connection that is gone."""
    wait_until(lambda: event in served.names())
    (found,) = [e for e in served.events if e[0] == event]
    return found[2:]


def enter(served, name: str = "user", **options) -> RawPeer:
    peer = served.peer(**options)
    peer.hi(name)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


@pytest.mark.parametrize(
    "limit", ["max_connections", "max_unauthenticated", "max_unauthenticated_per_address"]
)
def test_connections_above_the_bound_are_closed_with_1013(flavour: str, limit: str) -> None:
    with serve(flavour, limits=Limits(**{limit: 2})) as served:
        with served.peer() as first, served.peer() as second:
            wait_until(lambda: served.core.stats()["strangers"] == 2)
            with served.peer() as third:
                assert third.wait_closed() == (1013, "wse.server-full")
            first.hi("one")
            assert first.recv_message()[0] == "~wse:welcome"
            if limit != "max_connections":
                # Who is in is no stranger any more, so there is room at the door.
                with served.peer() as fourth:
                    fourth.hi("two")
                    assert fourth.recv_message()[0] == "~wse:welcome"
            second.kill()
            wait_until(lambda: served.core.stats()["strangers"] == 0)


def test_a_silent_stranger_is_closed_after_auth_timeout(flavour: str) -> None:
    with serve(flavour, limits=Limits(auth_timeout=0.1)) as served, served.peer() as peer:
        assert peer.wait_closed() == (1013, "wse.auth-timeout")
        wait_until(lambda: not served.core._open)
        assert served.events == []


def test_an_identify_that_gives_no_verdict_is_told_and_closed(flavour: str) -> None:
    with serve(flavour, identify=lambda auth: None, limits=Limits(auth_timeout=0.1)) as served:
        with served.peer() as peer:
            peer.hi("user")
            assert peer.wait_closed() == (1013, "wse.auth-timeout")
        wait_until(lambda: ("error", ErrorCode.AUTH_TIMEOUT) in served.events)
        assert not served.core.clients


def test_auth_timeout_ends_with_the_welcome(flavour: str) -> None:
    with serve(flavour, limits=Limits(auth_timeout=0.2)) as served, enter(served) as peer:
        assert served.core.clients["user"]
        peer.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.recv()


def test_calls_above_max_pending_calls_are_answered_with_an_error(flavour: str) -> None:
    release = threading.Event()

    def setup(server):
        if flavour == "blocking":
            server.register("hold", lambda conn, payload: release.wait(10))
        else:

            async def hold(conn, payload):
                while not release.is_set():
                    await asyncio.sleep(0.01)
                return True

            server.register("hold", hold)

    with serve(flavour, setup=setup, limits=Limits(max_pending_calls=3)) as served:
        with enter(served) as peer:
            for i in range(4):
                peer.send("hold", None, f"stamp{i}")
            assert peer.recv_message() == [
                "~wse:response-err",
                {"code": "wse.too-many-calls"},
                "stamp3",
            ]
            release.set()
            answers = [peer.recv_message() for _ in range(3)]
            assert sorted(a[2] for a in answers) == ["stamp0", "stamp1", "stamp2"]
            assert all(a[:2] == ["~wse:response", True] for a in answers)
            # An answer is counted right after it was sent.
            calls = served.core.stats
            wait_until(lambda: calls()["calls_served"]["ok"] == 3)
            assert calls()["calls_served"]["refused"] == 1


def test_calls_made_above_max_pending_calls_raise_in_the_caller() -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        peer.wait_closed()

    with RawServer(script) as server:
        with WseClient(server.url, limits=Limits(max_pending_calls=2)) as client:
            client.connect("me")
            waiting = [client.submit("never", i) for i in range(2)]
            wait_until(lambda: client.stats()["calls_pending"] == 2)
            with pytest.raises(RpcError, match="2 calls wait") as caught:
                client.call("never")
            assert caught.value.code == ErrorCode.TOO_MANY_CALLS
            waiting[0].cancel()
            wait_until(lambda: client.stats()["calls_pending"] == 1)
            assert not isinstance(caught.value, RpcFailed)
        assert waiting[1].exception(seconds(5)) is not None


def test_messages_above_the_rate_close_with_1008(flavour: str) -> None:
    limits = Limits(message_rate=0.001, message_burst=5)

    def setup(server):
        server.register("echo", lambda conn, payload: payload)

    with serve(flavour, setup=setup, limits=limits) as served, enter(served) as peer:
        for i in range(4):  # the introduction was the first of five
            peer.send("echo", i, f"s{i}")
        assert sorted(peer.recv_message()[1] for _ in range(4)) == [0, 1, 2, 3]
        peer.send("echo", 4, "s4")
        assert peer.wait_closed() == (1008, "wse.rate-limit")
        assert closed_with(served) == (1008, "wse.rate-limit")
        assert served.core.stats()["closings"] == {"1008 wse.rate-limit": 1}


def test_the_token_bucket_refills_at_its_rate_up_to_its_burst() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_reading_pauses_at_max_queue_and_goes_on_below_half() -> None:
    gate = threading.Event()
    seen = []

    def slow(conn, payload):
        gate.wait(10)
        seen.append(payload)

    def setup(server):
        server.channel.on("work", slow)

    limits = Limits(max_queue=10)
    with serve("blocking", setup=setup, limits=limits) as served, enter(served) as peer:
        for i in range(200):
            peer.send("work", i, None)
        (conn,) = served.core.connections.values()
        wait_until(lambda: conn._paused)
        assert conn.lane.waiting <= 11
        gate.set()
        wait_until(lambda: len(seen) == 200)
        assert seen == list(range(200))
        assert not conn._paused


def test_a_queue_that_cannot_pause_ends_with_1013() -> None:
    """While the server waits for this peer's answer it reads on; a flood then has an end."""
    stuck = threading.Event()

    def setup(server):
        server.channel.on("work", lambda conn, payload: stuck.wait(10))

        @server.register("ask")
        def ask(conn, payload):
            conn.call("never", timeout=10)

    with serve("blocking", setup=setup, limits=Limits(max_queue=10)) as served:
        with enter(served) as peer:
            peer.send("ask", None, "s")
            assert peer.recv_message()[0] == "never"
            with contextlib.suppress(OSError):
                peer.sock.sendall(peer.frame(TEXT, b'["work"]') * 99)
                wait_until(lambda: served.core.stats()["queued"] >= 90)
                assert "disconnected" not in served.names()
                peer.sock.sendall(peer.frame(TEXT, b'["work"]') * 50)
            assert peer.wait_closed() == (1013, "wse.queue-overflow")
            stuck.set()


def test_a_server_closes_a_slow_consumer_with_1013_and_nobody_else(flavour: str) -> None:
    limits = Limits(max_send_buffer=200_000, close_timeout=0.2)
    with serve(flavour, limits=limits, conn_per_user=5) as served:
        with enter(served, "slow"), enter(served, "quick") as quick:
            text = "x" * 50_000
            sent = 0
            while "slow" in served.core.clients:
                served.do(served.server.broadcast, "news", text)
                assert quick.recv_message() == ["news", text, None]
                sent += 1
                assert sent < 1000
            assert closed_with(served) == (1013, "wse.slow-consumer")
            served.do(served.server.broadcast, "news", "still here")
            assert quick.recv_message()[1] == "still here"


def test_one_message_larger_than_the_send_buffer_still_goes_out(flavour: str) -> None:
    with serve(flavour, limits=Limits(max_send_buffer=1000)) as served, enter(served) as peer:
        assert served.do(served.server.broadcast, "news", "x" * 500_000) == 1
        assert len(peer.recv_message()[1]) == 500_000


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
        with pytest.raises(SendTimeout, match="did not take"):
            while sent < 1000:
                client.send("bulk", [sent, "x" * 100_000], timeout=0.2)
                sent += 1
        assert client.stats()["send_buffer"] <= 600_000
        gate.set()
        client.send("bulk", [sent, "the end"], timeout=seconds(10))
        wait_until(lambda: len(got) == sent + 1)
        assert got == list(range(sent + 1))


def test_an_async_send_above_the_bound_raises_and_drain_waits() -> None:
    gate = threading.Event()

    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("~wse:welcome", None, None)
        gate.wait(10)
        peer.wait_closed()

    async def main(url: str) -> None:
        client = AsyncWseClient(url, limits=Limits(max_send_buffer=500_000))
        await client.connect("me")
        with pytest.raises(Exception, match="drain") as caught:
            for _ in range(1000):
                client.send("bulk", "x" * 100_000)
                await asyncio.sleep(0)
        assert caught.value.code == ErrorCode.SEND_BUFFER_FULL
        gate.set()
        await asyncio.wait_for(client.drain(), seconds(10))
        client.send("bulk", "x")
        await client.close()

    with RawServer(script) as server:
        asyncio.run(main(server.url))


def test_the_inbox_drops_the_oldest_and_counts_it() -> None:
    with serve("blocking") as served:
        with WseClient(served.url, limits=Limits(max_inbox=3)) as client:
            client.connect("me")
            for i in range(5):
                served.server.broadcast("n", i)
            wait_until(lambda: client.stats()["messages"]["in"] == 6)
            assert [client.receive(timeout=1).payload for _ in range(3)] == [2, 3, 4]
            assert client.stats()["inbox_dropped"] == 2


def test_stats_tell_what_happened(flavour: str) -> None:
    def setup(server):
        server.register("add", lambda conn, payload: sum(payload))
        server.register("fail", lambda conn, payload: 1 / 0)

    with serve(flavour, setup=setup) as served:
        stats = served.server.stats
        with enter(served) as peer:
            peer.send("add", [1, 2], "s1")
            peer.recv()
            peer.send("fail", None, "s2")
            peer.recv()
            peer.send("nothing", None, "s3")
            peer.recv()
            wait_until(lambda: stats()["calls_served"]["unknown"] == 1)
            now = stats()
            assert (now["connections"], now["users"], now["strangers"]) == (1, 1, 0)
            assert now["messages"] == {"in": 4, "out": 4}
            assert now["calls_served"] == {"ok": 1, "failed": 1, "unknown": 1, "refused": 0}
            assert now["bytes"]["in"] > 60
            assert now["bytes"]["out"] > 60
            before = now["bytes"]
            peer.close(1000, "a reason of the peer's own")
        wait_until(lambda: not stats()["connections"] and not served.core._open)
        assert stats()["closings"] == {"1000": 1}
        assert stats()["bytes"]["in"] > before["in"]
        json.dumps(stats())


def test_client_stats_tell_what_happened() -> None:
    def setup(server):
        server.register("add", lambda conn, payload: sum(payload))
        server.register("hang", lambda conn, payload: gate.wait(10))

    gate = threading.Event()
    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        assert client.stats()["status"] == "IDLE"
        client.connect("me")
        client.call("add", [1, 2])
        with pytest.raises(RpcError):
            client.call("nothing")
        with pytest.raises(TimeoutError):
            client.call("hang", timeout=0.05)
        gate.set()
        wait_until(lambda: client.stats()["calls_made"]["forgotten"] == 1)
        made = client.stats()["calls_made"]
        assert made == {"ok": 1, "failed": 1, "forgotten": 1, "disconnected": 0}
        json.dumps(client.stats())
