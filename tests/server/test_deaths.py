"""Peers that die at each step of getting in."""

import asyncio
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from wse_tornado import (
    ConnectionFailed,
    WseError,
)

from ..support import (
    FLAVOURS,
    Served,
    Used,
    beside,
    outcome,
    seconds,
    serve,
    use,
    wait_until,
)
from ..support.proxy import FaultProxy

STEPS = (
    "before hi",
    "while identify runs",
    "at the challenge",
    "after the solution",
    "as it is accepted",
    "right after accept",
)


class Admission:
    """A server's handlers that let a test choose what happens to the user "victim"."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.asked: list[Any] = []
        self.challenged = threading.Event()

    def setup(self, server: Any) -> None:
        if self.step != "while identify runs":
            server.use_challenge(self.quest)

    def quest(self, auth: Any) -> str:
        if auth.identity == "victim":
            self.challenged.set()
        return "quest"

    def identify(self, auth: Any) -> None:
        if auth.identity == "victim" and self.step != "right after accept":
            self.asked.append(auth)  # the verdict comes later
        else:
            auth.accept(auth.identity)


@pytest.mark.parametrize(
    ("victim", "step"),
    [
        *(("raw", step) for step in STEPS),
        # A client of ours that is connected has said hi.
        *((kind, step) for kind in FLAVOURS for step in STEPS[1:]),
    ],
)
def test_a_peer_killed_at_a_step_leaves_no_ghost(flavour: str, victim: str, step: str) -> None:
    admission = Admission(step)
    challenged = step != "while identify runs"
    with (
        serve(flavour, identify=admission.identify, setup=admission.setup) as served,
        ExitStack() as stack,
    ):
        bystanders: list[Any] = []
        for kind in {*FLAVOURS, "raw"} - {victim}:
            if kind == "raw":
                peer = stack.enter_context(served.peer())
                peer.hi(kind)
                if challenged:
                    peer.send("~wse:challenge", peer.recv_message()[1], None)
                assert peer.recv_message()[0] == "~wse:welcome"
                bystanders.append(peer)
                continue
            used: Used = stack.enter_context(use(kind, served.url))
            used.client.challenge(lambda quest: quest)
            used.connect(kind)
            bystanders.append(used)
        served.sockets(2)

        if victim == "raw":
            kill_raw(served, admission)
        else:
            kill_client(served, admission, victim)
        served.sockets(2)
        for auth in admission.asked:
            if not auth.decided:
                auth.accept("victim")  # nobody is there any more
        if step == "right after accept":
            served.happened("left", "victim", 1006, "")
        assert "victim" not in served.server.clients
        for bystander in bystanders:
            bystander.close()
        wait_until(lambda: not served.server.clients)
        served.sockets(0)
        wait_until(lambda: served.names().count("left") == served.names().count("joined"))
        joined = sorted(event[1] for event in served.events if event[0] == "joined")
        left = sorted(event[1] for event in served.events if event[0] == "left")
        assert left == joined
        assert len(set(joined)) == len(joined)
        if step not in ("right after accept", "as it is accepted"):
            assert "victim" not in joined
        assert served.names().count("connected") == served.names().count("disconnected")


def kill_raw(served: Served, admission: Admission) -> None:
    """A raw peer gets as far as the step, and dies."""
    step = admission.step
    with served.peer() as peer:
        served.sockets(3)
        if step != "before hi":
            peer.hi("victim")
        if step == "while identify runs":
            wait_until(lambda: admission.asked)
        elif step != "before hi":
            assert peer.recv() == '["~wse:challenge","quest",null]'
            if step != "at the challenge":
                peer.send("~wse:challenge", "quest", None)
        if step in ("after the solution", "as it is accepted"):
            wait_until(lambda: admission.asked)
        elif step == "right after accept":
            wait_until(lambda: "victim" in served.server.clients)
        peer.kill()
        if step == "as it is accepted":
            admission.asked[0].accept("victim")


def kill_client(served: Served, admission: Admission, kind: str) -> None:
    """A client of ours gets as far as the step, and its connection dies."""
    step = admission.step
    solving = threading.Event()

    async def solve(quest: Any) -> Any:
        solving.set()
        if step == "at the challenge":
            await asyncio.sleep(3600)
        return quest

    with FaultProxy(served.port) as proxy, use(kind, proxy.url) as used:
        used.client.challenge(solve)
        welcome = beside(used.connect, "victim", timeout=seconds(20))
        if step == "before hi":
            used.happened(
                "connected",
            )  # and it has said hi
            served.sockets(3)
        elif step == "at the challenge":
            assert solving.wait(seconds(5))
        elif step == "right after accept":
            wait_until(lambda: "victim" in served.server.clients)
        else:
            wait_until(lambda: admission.asked)
        proxy.cut()
        if step == "as it is accepted":
            admission.asked[0].accept("victim")
        if step == "right after accept":
            with suppress(ConnectionFailed):  # or it saw the welcome in time
                outcome(welcome)
        else:
            with pytest.raises(WseError):
                outcome(welcome)
