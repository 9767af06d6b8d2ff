"""Both ends of an open connection under pressure: rates, calls from threads, queues that fill."""

import json
import threading
from typing import Any

import pytest

from wse_tornado import Backoff, ErrorCode, Limits, RpcDisconnected, RpcError, WseClient

from .support import FLAVOURS, RawPeer, RawServer, Served, seconds, serve, wait_until
from .support.clients import beside, outcome, use
from .support.peer import PING, TEXT


def enter(served: Served, name: str = "ann") -> RawPeer:
    peer = served.peer()
    peer.hi(name)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


def let_in(peer: RawPeer) -> None:
    """The part of a server's script that comes first."""
    peer.recv()
    peer.send("~wse:welcome", None, None)


# -- the rate of messages


def test_what_follows_the_message_too_many_reaches_nobody(flavour: str) -> None:
    got: list[int] = []
    limits = Limits(message_rate=0.001, message_burst=4)

    def setup(server: Any) -> None:
        server.channel.on("n", lambda conn, payload: got.append(payload))

    with serve(flavour, setup=setup, limits=limits) as served:
        with enter(served) as peer:  # which was the first of four
            frames = [peer.frame(TEXT, json.dumps(["n", i]).encode()) for i in range(50)]
            peer.sock.sendall(b"".join(frames))
            assert peer.wait_closed() == (1008, "wse.rate-limit")
            wait_until(lambda: "left" in served.names())
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
        wait_until(lambda: not served.core._open)


def test_pings_do_not_count_as_messages(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)

    limits = Limits(message_rate=0.001, message_burst=2)
    with serve(flavour, setup=setup, limits=limits) as served, enter(served) as peer:
        for _ in range(20):
            peer.send_frame(PING, b"x")
        peer.send("echo", 1, "s")
        assert peer.recv_message() == ["~wse:response", 1, "s"]


@pytest.mark.parametrize("kind", FLAVOURS)
def test_a_client_takes_messages_at_any_rate(kind: str) -> None:
    limits = Limits(message_rate=1, message_burst=1)
    got: list[int] = []
    with serve("async") as served, use(kind, served.url, limits=limits) as used:
        used.client.channel.on("n", got.append)
        used.connect("ann")
        for number in range(100):
            served.do(served.core.broadcast, "n", number)
        wait_until(lambda: got == list(range(100)))


# -- heartbeats


def test_the_peer_that_answers_pings_has_a_latency(flavour: str) -> None:
    limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
    with serve(flavour, limits=limits) as served, enter(served) as peer:
        (conn,) = served.core.connections.values()
        peer.sock.settimeout(0.01)
        for _ in range(1000):
            try:
                peer.recv()
            except TimeoutError:
                if conn.latency is not None and len(peer.pings) > 2:
                    break
        assert 0 <= conn.latency < seconds(5)
        assert served.core.stats()["latency"]["max"] == conn.latency


def test_pings_of_the_peer_are_a_sign_of_life(flavour: str) -> None:
    """It answers none of ours, and says nothing else."""
    limits = Limits(heartbeat=0.1, heartbeat_timeout=seconds(0.2))
    with serve(flavour, limits=limits) as served, enter(served) as peer:
        pings = 0
        while pings < 3:  # unheard, the first of them would have been the last
            opcode, _ = peer.recv_frame()
            if opcode == PING:
                pings += 1
                peer.send_frame(PING, b"here")
        assert served.core.clients
        peer.answer_pings = False
        assert peer.wait_closed() == (1006, "")


# -- calls from threads


def test_calls_behind_waiting_messages_do_not_overtake_them() -> None:
    gate = threading.Event()
    got: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        gate.wait(seconds(10))
        while True:
            _, payload, stamp = peer.recv_message()
            got.append(payload[0])
            if stamp:
                peer.send("~wse:response", payload[0], stamp)

    with RawServer(script) as server, WseClient(server.url) as client:
        client.connect("ann")
        sent = 0
        while not client.stats()["send_buffer"]:  # what the systems' own buffers hold
            client.send("bulk", [sent, "x" * 60_000])
            sent += 1
        gate.set()  # now there is room in the system's buffer again and again
        last = sent + 2000
        answers = [
            client.submit("echo", [number], timeout=seconds(20)) for number in range(sent, last)
        ]
        assert [answer.result(seconds(20)) for answer in answers] == list(range(sent, last))
        assert got == list(range(last))


def test_large_calls_of_many_threads_arrive_whole() -> None:
    """The system takes the beginning of one; the rest must not meet another thread's frame."""

    def setup(server: Any) -> None:
        server.register("size", lambda conn, payload: [payload[0], len(payload)])

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("ann")
        sizes = [3_000_000 + number for number in range(6)]
        answers = [
            beside(client.call, "size", str(number) * size, timeout=seconds(30))
            for number, size in enumerate(sizes)
        ]
        for number, answer in enumerate(answers):
            assert outcome(answer, 30) == [str(number), sizes[number]]


def test_calls_of_threads_on_a_connection_that_is_reset_all_fail_at_once() -> None:
    peers: list[RawPeer] = []
    gate = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peers.append(peer)
        for _ in range(8):
            peer.recv()
        gate.set()
        peer.kill()

    with RawServer(script) as server, WseClient(server.url) as client:
        client.connect("ann")
        answers = [beside(client.call, "never", i, timeout=seconds(30)) for i in range(8)]
        assert gate.wait(seconds(10))
        for answer in answers:
            with pytest.raises(RpcDisconnected) as caught:
                outcome(answer)
            assert caught.value.sent
        assert client.wait(timeout=seconds(5))
        assert client.stats()["calls_made"]["disconnected"] == 8
        assert client.stats()["calls_pending"] == 0


def test_too_many_calls_from_threads_raise_and_leave_room_afterwards() -> None:
    gate = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        first = [peer.recv_message() for _ in range(2)]
        gate.wait(seconds(10))
        for _, payload, stamp in first:
            peer.send("~wse:response", payload, stamp)
        while True:
            _, payload, stamp = peer.recv_message()
            peer.send("~wse:response", payload, stamp)

    with RawServer(script) as server:
        with WseClient(server.url, limits=Limits(max_pending_calls=2)) as client:
            client.connect("ann")
            answers = [beside(client.call, "echo", i, timeout=seconds(10)) for i in range(2)]
            wait_until(lambda: client.stats()["calls_pending"] == 2)
            with pytest.raises(RpcError) as caught:
                client.call("echo", 2)
            assert caught.value.code == ErrorCode.TOO_MANY_CALLS
            gate.set()
            assert [outcome(answer) for answer in answers] == [0, 1]
            assert client.call("echo", 3) == 3


# -- queues that fill


def test_a_client_whose_reading_pauses_reads_on_for_its_calls() -> None:
    stuck = threading.Event()
    got: list[int] = []

    def handler(payload: int) -> None:
        stuck.wait(seconds(10))
        got.append(payload)

    def script(peer: RawPeer) -> None:
        let_in(peer)
        for number in range(30):
            peer.send("n", number, None)
        while True:
            _, payload, stamp = peer.recv_message()
            peer.send("~wse:response", payload, stamp)

    limits = Limits(max_queue=10)
    with RawServer(script) as server, WseClient(server.url, limits=limits) as client:
        client.channel.on("n", handler)
        client.connect("ann")
        wait_until(lambda: client._core.link._paused)
        assert client.stats()["queued"] < 30
        assert client.call("echo", "answered", timeout=seconds(10)) == "answered"
        stuck.set()
        wait_until(lambda: got == list(range(30)))
        wait_until(lambda: not client._core.link._paused)


@pytest.mark.parametrize("reconnect", [False, True], ids=["once", "reconnect"])
def test_a_flood_while_a_call_is_pending_ends_the_connection(reconnect: bool) -> None:
    """Reading cannot pause then, because the answer stands behind the flood."""
    stuck = threading.Event()
    lives: list[int] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        lives.append(1)
        if len(lives) > 1:
            peer.wait_closed()
            return
        peer.recv()  # the call
        try:
            for number in range(1000):
                peer.send("n", number, None)
        except OSError:
            return
        assert peer.wait_closed()[0] in (1013, 1006)

    backoff = Backoff(initial=0.01, maximum=0.02) if reconnect else False
    limits = Limits(max_queue=5)
    with RawServer(script) as server:
        with WseClient(server.url, limits=limits, reconnect=backoff) as client:
            client.channel.on("n", lambda payload: stuck.wait(seconds(10)))
            client.connect("ann")
            with pytest.raises(RpcDisconnected) as caught:
                client.call("never", timeout=seconds(20))
            assert caught.value.details["disconnected"] == [1013, "wse.queue-overflow"]
            assert client.stats()["queued"] <= 50
            if reconnect:
                client.wait_ready(timeout=seconds(10))
            else:
                assert client.wait(timeout=seconds(10))
            stuck.set()


def test_a_paused_connection_that_is_closed_ends_nevertheless() -> None:
    stuck = threading.Event()

    def setup(server: Any) -> None:
        server.channel.on("n", lambda conn, payload: stuck.wait(seconds(10)))

    limits = Limits(max_queue=5, close_timeout=0.2)
    with serve("blocking", setup=setup, limits=limits) as served:
        with enter(served) as peer:
            (conn,) = served.core.connections.values()
            peer.sock.sendall(peer.frame(TEXT, b'["n"]') * 40)
            wait_until(lambda: conn._paused)
            assert served.server.drop_client("ann") == 1
            assert peer.wait_closed() == (1000, "wse.by-server")
            wait_until(lambda: not served.core._open)
            stuck.set()
