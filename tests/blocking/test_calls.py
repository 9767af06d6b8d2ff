"""Calls from threads, and queues that fill meanwhile."""

import threading
from typing import Any

import pytest

from wse_tornado import ErrorCode, Limits, RpcDisconnected, RpcError, WseClient

from ..support import QUICK, RawPeer, RawServer, beside, let_in, outcome, seconds, use, wait_until


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
    with RawServer(script) as server, use("blocking", server.url, limits=limits) as used:
        client = used.client
        client.channel.on("n", handler)
        client.connect("ann")
        wait_until(used.paused)
        assert client.stats()["queued"] < 30
        assert client.call("echo", "answered", timeout=seconds(10)) == "answered"
        stuck.set()
        wait_until(lambda: got == list(range(30)))
        wait_until(lambda: not used.paused())


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

    backoff = QUICK if reconnect else False
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
