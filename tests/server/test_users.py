"""Users and their devices: signals, lingering, sending, dropping."""

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from wse_tornado import Limits, RpcDisconnected

from ..support import beside, outcome, seconds, serve, wait_until
from ..support.loops import connected, listening, record_server


def test_signals_come_in_order_with_the_true_code_and_reason(flavour: str) -> None:
    with serve(flavour, conn_per_user=2) as served:
        phone = served.enter("ann", {"device": "phone"})
        laptop = served.enter("ann", {"device": "laptop"})
        laptop.close(1001, "tab closed")
        served.happened("disconnected")
        assert "left" not in served.names()
        phone.close(4000, "jump")
        served.happened("left")
        served.enter("bob").close(1000, "last")
        served.happened("left", "bob")
        assert served.events == [
            ("joined", "ann", {"device": "phone"}),
            ("connected", "ann"),
            ("connected", "ann"),
            ("disconnected", "ann", 1001, "tab closed"),
            ("disconnected", "ann", 4000, "jump"),
            ("left", "ann", 4000, "jump"),
            ("joined", "bob", {}),
            ("connected", "bob"),
            ("disconnected", "bob", 1000, "last"),
            ("left", "bob", 1000, "last"),
        ]
        assert not served.server.clients


def test_left_comes_once_when_the_server_drops_and_the_peer_dies(flavour: str) -> None:
    with serve(flavour) as served:
        peer = served.enter()
        served.do(served.server.drop_client, "ann", "enough")
        peer.kill()
        served.sockets(0)
        served.enter("bob").close(1000, "last")
        served.happened("left", "bob", 1000, "last")
        assert [event for event in served.events if event[:2] == ("left", "ann")] == [
            ("left", "ann", 1000, "enough")
        ]


def test_another_connections_end_does_not_cost_a_call_its_disconnect_notice(flavour: str) -> None:
    with serve(flavour, conn_per_user=2) as served:
        first, second, other = served.enter(), served.enter(), served.enter("bob")
        conns = list(served.server.clients["ann"].conns.values())
        answers = [beside(served.do, conn.call, "slow") for conn in conns]
        first.recv()
        second.recv()
        other.close(1000, "wse.by-client")
        wait_until(lambda: "bob" not in served.server.clients)
        first.close(1000, "first")
        with pytest.raises(RpcDisconnected) as caught:
            outcome(answers[0])
        assert caught.value.details == {"disconnected": [1000, "first"]}
        assert not answers[1].done()
        second.close(1000, "second")
        with pytest.raises(RpcDisconnected) as caught:
            outcome(answers[1])
        assert caught.value.details == {"disconnected": [1000, "second"]}


async def test_lingering_waits_for_the_user_to_come_back() -> None:
    async with listening(linger=seconds(20)) as server:
        events = record_server(server)
        async with connected(server):
            pass
        await events.wait("disconnected")
        assert list(server.clients) == ["alice"]
        assert server.send("alice", "a") == 0
        async with connected(server):
            assert events.names().count("joined") == 1
        await events.wait("disconnected", 2)
        assert "left" not in events.names()
        await server.stop()
        assert events.of("left") == [("alice", 1000, "wse.by-client")]
        assert not server.clients


async def test_lingering_ends() -> None:
    async with listening(linger=0.05) as server:
        events = record_server(server)
        async with connected(server) as client:
            await client.close(1000, "away")
        assert await events.wait("left") == ("alice", 1000, "away")
        assert not server.clients


def test_messages_reach_their_users_and_are_counted(flavour: str) -> None:
    with serve(flavour, conn_per_user=2) as served:
        one, two, other = served.enter("ann"), served.enter("ann"), served.enter("bob")
        server, conn = served.server, served.conn("ann")
        for count, send in (
            (3, lambda: server.broadcast("all", 1)),
            (2, lambda: server.broadcast("others", 2, exclude="bob")),
            (3, lambda: server.broadcast("all", 3, exclude="nobody")),
            (2, lambda: server.send("ann", "mine", 4)),
            (0, lambda: server.send("nobody", "mine", 4)),
            (2, lambda: server.clients["ann"].send("mine", 5)),
            (1, lambda: conn.send("this", 6)),
        ):
            assert served.do(send) == count
        expected = [["all", 1], ["others", 2], ["all", 3], ["mine", 4], ["mine", 5]]
        assert [one.recv_message()[:2] for _ in range(5)] == expected
        assert [two.recv_message()[:2] for _ in range(6)] == [*expected, ["this", 6]]
        assert [other.recv_message()[1] for _ in range(2)] == [1, 3]
        for peer in (one, two, other):
            peer.close()


def test_dropping_tells_the_reason_and_counts(flavour: str) -> None:
    with serve(flavour, conn_per_user=3) as served:
        server, peers, conns = served.server, [], []
        for _ in range(3):
            peers.append(served.enter("ann"))
            conns.append(served.conn("ann"))
        served.do(conns[0].drop, "that one")
        served.do(conns[0].drop, "again")
        assert peers[0].wait_closed() == (1000, "that one")
        wait_until(lambda: list(server.clients["ann"].conns.values()) == conns[1:])
        assert served.do(server.drop_client, "ann", "all of them") == 2
        assert served.do(server.drop_client, "nobody") == 0
        for peer in peers[1:]:
            assert peer.wait_closed() == (1000, "all of them")
        wait_until(lambda: not server.clients)
        assert served.do(server.drop_client, "ann") == 0
        assert served.do(conns[0].send, "news") == 0
        with pytest.raises(RpcDisconnected) as caught:
            served.do(conns[0].call, "anything")
        assert not caught.value.sent


def test_a_drop_whose_reason_is_no_text_does_not_leave_a_half_closed_connection() -> None:
    with serve("async") as served, served.enter() as peer:
        conn = served.conn()
        with pytest.raises(Exception):
            served.do(conn.drop, 5)
        served.do(conn.drop)
        assert peer.wait_closed() == (1000, "wse.by-server")


@pytest.mark.timeout(90)
def test_a_left_handler_that_broadcasts_to_stalled_devices_neither_recurses_nor_reorders(
    flavour: str,
) -> None:
    stalled, size = 150, 40_000

    def setup(server: Any) -> None:
        # Large enough to fill further devices, and small enough for the one that reads.
        server.when.left(
            lambda client, code, reason: server.broadcast("left", [client.cid, "x" * 5000])
        )

    limits = Limits(max_send_buffer=100_000, close_timeout=0.2)
    with ExitStack() as stack:
        served = stack.enter_context(serve(flavour, setup=setup, limits=limits))
        witness = stack.enter_context(served.enter("witness"))
        for number in range(stalled):
            stack.enter_context(served.enter(f"stalled-{number}"))
        for conn in list(served.hub.users.devices.values()):
            if conn.cid != "witness":  # the system takes little for those that do not read
                sock = conn._transport._pipe._sock
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        heard: list[Any] = []
        number = 0
        while len(served.server.clients) > 1:
            served.do(served.server.broadcast, "bulk", [number, "x" * size])
            number += 1
            while True:
                kind, payload, _ = witness.recv_message()
                heard.append((kind, payload[0]))
                if heard[-1] == ("bulk", number - 1):
                    break
            assert number < 500
        wait_until(lambda: len(served.server.clients) == 1)
        while sum(kind == "left" for kind, _ in heard) < stalled:
            kind, payload, _ = witness.recv_message()
            heard.append((kind, payload[0]))
        assert [payload for kind, payload in heard if kind == "bulk"] == list(range(number))
        gone = [payload for kind, payload in heard if kind == "left"]
        assert sorted(gone) == sorted(f"stalled-{number}" for number in range(stalled))
        assert served.of("error") == []
