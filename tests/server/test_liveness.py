"""Heartbeats of a server."""

import asyncio

from wse_tornado import (
    Limits,
    Reason,
)

from ..support import (
    RawPeer,
    seconds,
    serve,
)
from ..support.loops import connected, listening, record_server, wait_for
from ..support.peer import PING


async def test_a_client_that_goes_silent_leaves_with_1006_and_frees_its_place() -> None:
    limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.1))
    async with listening(limits=limits) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        assert await events.wait("left") == ("alice", 1006, Reason.HEARTBEAT)
        await wait_for(lambda: not server._hub.connections, events)
        peer.kill()


async def test_a_heartbeat_of_zero_never_pings() -> None:
    async with listening(limits=Limits(heartbeat=0)) as server, connected(server):
        (conn,) = server.clients["alice"].conns.values()
        assert conn._conn._heartbeat is None


def test_the_peer_that_answers_pings_has_a_latency(flavour: str) -> None:
    limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
    with serve(flavour, limits=limits) as served, served.enter() as peer:
        conn = served.conn()
        peer.sock.settimeout(0.01)
        for _ in range(1000):
            try:
                peer.recv()
            except TimeoutError:
                if conn.latency is not None and len(peer.pings) > 2:
                    break
        assert 0 <= conn.latency < seconds(5)
        assert served.stats()["latency"]["max"] == conn.latency


def test_pings_of_the_peer_are_a_sign_of_life(flavour: str) -> None:
    """It answers none of ours, and says nothing else."""
    limits = Limits(heartbeat=0.1, heartbeat_timeout=seconds(0.2))
    with serve(flavour, limits=limits) as served, served.enter() as peer:
        pings = 0
        while pings < 3:  # unheard, the first of them would have been the last
            opcode, _ = peer.recv_frame()
            if opcode == PING:
                pings += 1
                peer.send_frame(PING, b"here")
        assert served.server.clients
        peer.answer_pings = False
        assert peer.wait_closed() == (1006, "")
