"""Every bound of a server at its edge: at it all is well, above it what `Limits` says happens."""

import asyncio
import contextlib
import json
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    ErrorCode,
    Limits,
    RpcFailed,
)

from ..support import (
    RawPeer,
    beside,
    nothing_sent,
    outcome,
    seconds,
    serve,
    wait_until,
)
from ..support.loops import connected, listening, wait_for
from ..support.peer import PING, TEXT


@pytest.mark.parametrize(
    "limit", ["max_connections", "max_unauthenticated", "max_unauthenticated_per_address"]
)
def test_connections_above_the_bound_are_closed_with_1013(flavour: str, limit: str) -> None:
    with serve(flavour, limits=Limits(**{limit: 2})) as served:
        with served.peer() as first, served.peer() as second:
            wait_until(lambda: served.stats()["strangers"] == 2)
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
            wait_until(lambda: served.stats()["strangers"] == 0)


AUTH_TIMEOUT = seconds(0.5)


@pytest.mark.parametrize("step", ["before hi", "while identify decides", "at the challenge"])
def test_who_does_not_get_in_within_auth_timeout_is_closed(flavour: str, step: str) -> None:
    asked: list[Any] = []

    def setup(server: Any) -> None:
        if step == "at the challenge":
            server.use_challenge(lambda auth: "quest")

    limits = Limits(auth_timeout=AUTH_TIMEOUT)
    with serve(flavour, identify=asked.append, setup=setup, limits=limits) as served:
        with served.peer() as peer:
            if step != "before hi":
                peer.hi("ann")
            assert peer.wait_closed() == (1013, "wse.auth-timeout")
        served.sockets(0)
        for auth in asked:
            auth.accept("ann")  # too late
        assert not served.server.clients
        if asked:
            served.happened("error", ErrorCode.AUTH_TIMEOUT)
        assert set(served.names()) <= {"error"}


def test_auth_timeout_ends_with_the_welcome(flavour: str) -> None:
    with serve(flavour, limits=Limits(auth_timeout=AUTH_TIMEOUT)) as served:
        with served.enter() as peer, served.peer() as later:
            assert later.wait_closed() == (1013, "wse.auth-timeout")
            nothing_sent(peer)
            assert list(served.server.clients) == ["ann"]


async def test_who_never_finishes_the_http_request_ends_with_the_auth_timeout() -> None:
    async with listening(limits=Limits(auth_timeout=AUTH_TIMEOUT)) as server:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), seconds(10)) == b""
            writer.close()
            await writer.wait_closed()


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
        with served.enter() as peer:
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
            calls = served.stats
            wait_until(lambda: calls()["calls_served"]["ok"] == 3)
            assert calls()["calls_served"]["refused"] == 1


def test_what_follows_the_message_too_many_reaches_nobody(flavour: str) -> None:
    got: list[int] = []
    limits = Limits(message_rate=0.001, message_burst=4)

    def setup(server: Any) -> None:
        server.channel.on("n", lambda conn, payload: got.append(payload))

    with serve(flavour, setup=setup, limits=limits) as served:
        with served.enter() as peer:  # which was the first of four
            frames = [peer.frame(TEXT, json.dumps(["n", i]).encode()) for i in range(50)]
            peer.sock.sendall(b"".join(frames))
            assert peer.wait_closed() == (1008, "wse.rate-limit")
            served.happened("left")
            assert got == [0, 1, 2]
            assert "error" not in served.names()


def test_a_stranger_has_a_rate_too(flavour: str) -> None:
    limits = Limits(message_rate=0.001, message_burst=2)
    with serve(flavour, identify=lambda auth: None, limits=limits) as served:
        with served.peer() as peer:
            peer.hi("ann")
            peer.send("n", 1, None)
            peer.send("n", 2, None)
            assert peer.wait_closed() == (1008, "wse.rate-limit")
        served.sockets(0)


def test_pings_do_not_count_as_messages(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)

    limits = Limits(message_rate=0.001, message_burst=2)
    with serve(flavour, setup=setup, limits=limits) as served, served.enter() as peer:
        for _ in range(20):
            peer.send_frame(PING, b"x")
        peer.send("echo", 1, "s")
        assert peer.recv_message() == ["~wse:response", 1, "s"]


def test_reading_pauses_at_max_queue_and_goes_on_below_half(flavour: str) -> None:
    gate, seen = threading.Event(), []

    def slow(conn: Any, payload: int) -> None:
        gate.wait(seconds(10))
        seen.append(payload)

    async def slow_on_loop(conn: Any, payload: int) -> None:
        while not gate.is_set():
            await asyncio.sleep(0.01)
        seen.append(payload)

    def setup(server: Any) -> None:
        server.channel.on("work", slow if flavour == "blocking" else slow_on_loop)
        server.register("sync", lambda conn, payload: len(seen))

    total = 3000
    with serve(flavour, setup=setup, limits=Limits(max_queue=10)) as served:
        with served.enter() as peer:

            def flood() -> None:
                for number in range(total):
                    peer.send("work", number)
                peer.send("sync", None, "s")

            flooding = beside(flood)
            wait_until(served.paused)
            assert seen == []
            # What had been read in one go may still be there, but no more than that comes.
            assert served.stats()["queued"] < total
            gate.set()
            assert peer.recv_message()[0] == "~wse:response"
            outcome(flooding)
            wait_until(lambda: seen == list(range(total)))
            assert not served.paused()


def test_a_queue_that_cannot_pause_ends_with_1013() -> None:
    """While the server waits for this peer's answer it reads on; a flood then has an end."""
    stuck = threading.Event()

    def setup(server):
        server.channel.on("work", lambda conn, payload: stuck.wait(10))

        @server.register("ask")
        def ask(conn, payload):
            conn.call("never", timeout=10)

    with serve("blocking", setup=setup, limits=Limits(max_queue=10)) as served:
        with served.enter() as peer:
            peer.send("ask", None, "s")
            assert peer.recv_message()[0] == "never"
            with contextlib.suppress(OSError):
                peer.sock.sendall(peer.frame(TEXT, b'["work"]') * 99)
                wait_until(lambda: served.stats()["queued"] >= 90)
                assert "disconnected" not in served.names()
                peer.sock.sendall(peer.frame(TEXT, b'["work"]') * 50)
            assert peer.wait_closed() == (1013, "wse.queue-overflow")
            stuck.set()


async def test_a_paused_connection_still_gets_the_answer_it_waits_for() -> None:
    async with listening(limits=Limits(max_queue=5)) as server, connected(server) as client:
        results: asyncio.Queue[Any] = asyncio.Queue()
        gate = asyncio.Event()

        @server.channel.on("ask")
        async def ask(conn: Any, payload: Any) -> None:
            await gate.wait()  # until reading has been paused
            results.put_nowait(await conn.call("double", payload))

        client.register("double", lambda payload: payload * 2)
        (conn,) = server.clients["alice"].conns.values()
        for number in range(50):
            client.send("ask", number)
        await wait_for(lambda: conn._conn._paused, "paused")
        gate.set()
        assert [await results.get() for _ in range(50)] == [n * 2 for n in range(50)]


def test_a_paused_connection_that_is_closed_ends_nevertheless() -> None:
    stuck = threading.Event()

    def setup(server: Any) -> None:
        server.channel.on("n", lambda conn, payload: stuck.wait(seconds(10)))

    limits = Limits(max_queue=5, close_timeout=0.2)
    with serve("blocking", setup=setup, limits=limits) as served:
        with served.enter() as peer:
            peer.sock.sendall(peer.frame(TEXT, b'["n"]') * 40)
            wait_until(served.paused)
            assert served.server.drop_client("ann") == 1
            assert peer.wait_closed() == (1000, "wse.by-server")
            served.sockets(0)
            stuck.set()


@pytest.mark.parametrize("what", ["ignored", "error"])
def test_signals_that_a_peer_can_cause_are_bounded(what: str) -> None:
    let_go: list[asyncio.Event] = []

    async def slow(*_args: Any) -> None:
        await let_go[0].wait()

    def fail(conn: Any, payload: Any) -> None:
        raise ValueError("no")

    async def main() -> None:
        let_go.append(asyncio.Event())
        server = AsyncWseServer(identify=lambda auth: "anna", limits=Limits(max_queue=10))
        server.register("fail", fail)
        getattr(server.when, what)(slow)
        server.listen(0, "127.0.0.1")
        client = AsyncWseClient(f"ws://127.0.0.1:{server.port}")
        await client.connect("anna")
        calls = []
        for _ in range(50):
            if what == "ignored":
                client.send("nobody listens")
            else:
                calls.append(asyncio.ensure_future(client.call("fail")))
            for _ in range(5):  # one packet each, or all are in the first
                await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        queued = server.stats()["queued"]
        let_go[0].set()
        if calls:
            await asyncio.wait(calls)
            assert {type(call.exception()) for call in calls} == {RpcFailed}
        await client.close()
        await server.stop()
        assert queued <= 20

    asyncio.run(main())


def everything(peer: RawPeer) -> bytes:
    """All bytes up to the end of a close frame's reason."""
    data = bytearray()
    while not data.endswith(b"wse.slow-consumer"):
        chunk = peer.sock.recv(1 << 20)
        assert chunk, "the connection ended without a close frame"
        data += chunk
    return bytes(data)


def test_a_slow_consumer_is_closed_with_1013_and_delays_nobody(flavour: str) -> None:
    """Each round is with all others before the next one is sent."""
    bound = 200_000
    limits = Limits(max_send_buffer=bound, close_timeout=seconds(30))
    with serve(flavour, limits=limits) as served, ExitStack() as stack:
        slow = stack.enter_context(served.enter("slow"))
        others = [stack.enter_context(served.enter(f"user-{n}")) for n in range(20)]
        text, sent, most = "x" * 50_000, 0, 0
        while "slow" in served.server.clients:
            served.do(served.server.broadcast, "news", [sent, text])
            for peer in others:
                assert peer.recv_message() == ["news", [sent, text], None]
            sent += 1
            assert sent < 1000
            most = max(most, served.stats()["send_buffer"])
        assert 0 < most <= bound
        served.happened("disconnected", "slow", 1013, "wse.slow-consumer")
        assert len(served.of("disconnected")) == 1
        # What waited for it comes, and then the close frame.
        assert everything(slow).endswith(b"\x88\x13\x03\xf5wse.slow-consumer")
        with served.enter("slow") as again:
            served.do(served.server.broadcast, "news", "again")
            assert again.recv_message() == ["news", "again", None]


def test_one_message_larger_than_the_send_buffer_still_goes_out(flavour: str) -> None:
    with serve(flavour, limits=Limits(max_send_buffer=1000)) as served, served.enter() as peer:
        assert served.do(served.server.broadcast, "news", "x" * 500_000) == 1
        assert len(peer.recv_message()[1]) == 500_000


def test_stats_tell_what_happened(flavour: str) -> None:
    def setup(server):
        server.register("add", lambda conn, payload: sum(payload))
        server.register("fail", lambda conn, payload: 1 / 0)

    with serve(flavour, setup=setup) as served:
        stats = served.stats
        with served.enter() as peer:
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
        wait_until(lambda: not stats()["connections"] and not served.hub.connections)
        assert stats()["closings"] == {"1000": 1}
        assert stats()["bytes"]["in"] > before["in"]
        json.dumps(stats())
