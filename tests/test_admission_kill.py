"""Peers that die at each step of getting in, and a connection with a thousand calls in flight."""

import asyncio
import random
import socket
import struct
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from wse_tornado import ConnectionFailed, WseError

from .support import FLAVOURS, RawPeer, Served, seconds, serve, wait_until
from .support.clients import Used, beside, outcome, use

STEPS = (
    "before hi",
    "while identify runs",
    "at the challenge",
    "after the solution",
    "as it is accepted",
    "right after accept",
)


def reset(sock: socket.socket) -> None:
    """End a connection as a dying machine does."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads
    sock.close()


class Cable:
    """A TCP connection to a server that can be cut, or holds back all after the handshake."""

    def __init__(self, port: int, *, holds: bool = False) -> None:
        self._holds = holds
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._port))
        self._ends = [near, far]
        up = threading.Thread(target=self._pump, args=(near, far, self._holds), daemon=True)
        down = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
        self._threads += [up, down]
        up.start()
        down.start()

    def _pump(self, source: socket.socket, sink: socket.socket, holds: bool) -> None:
        head = b""
        try:
            while data := source.recv(65536):
                if not holds:
                    sink.sendall(data)
                elif b"\r\n\r\n" not in head:
                    head += data
                    sink.sendall(data)
        except OSError:
            pass

    def cut(self) -> None:
        """Reset both ends."""
        self._threads[0].join(seconds(5))
        for end in self._ends:
            reset(end)
        for thread in self._threads[1:]:
            thread.join(seconds(5))
        self._listener.close()


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


def connections(served: Served, count: int) -> None:
    """Wait until so many are open."""
    wait_until(lambda: f"connections={count}" in repr(served.core), what=f"{count} {served.core}")


def raw_in(served: Served, name: str, challenged: bool) -> RawPeer:
    """A raw peer that is in."""
    peer = served.peer()
    peer.hi(name)
    if challenged:
        peer.send("~wse:challenge", peer.recv_message()[1], None)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", [*FLAVOURS, "raw"])
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
                bystanders.append(stack.enter_context(raw_in(served, kind, challenged)))
                continue
            used: Used = stack.enter_context(use(kind, served.url))
            used.client.challenge(lambda quest: quest)
            used.connect(kind)
            bystanders.append(used)
        connections(served, 2)

        if victim == "raw":
            kill_raw(served, admission)
        else:
            kill_client(served, admission, victim)
        connections(served, 2)
        for auth in admission.asked:
            if not auth.decided:
                auth.accept("victim")  # nobody is there any more
        if step == "right after accept":
            wait_until(lambda: ("left", "victim", 1006, "") in served.events)
        assert "victim" not in served.server.clients
        for bystander in bystanders:
            bystander.close()
        wait_until(lambda: not served.server.clients)
        connections(served, 0)
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
        connections(served, 3)
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

    cable = Cable(served.port, holds=step == "before hi")
    with use(kind, cable.url) as used:
        used.client.challenge(solve)
        welcome = beside(used.connect, "victim", timeout=seconds(20))
        if step == "before hi":
            wait_until(lambda: ("connected",) in used.events)  # and it has said hi
            connections(served, 3)
        elif step == "at the challenge":
            assert solving.wait(seconds(5))
        elif step == "right after accept":
            wait_until(lambda: "victim" in served.server.clients)
        else:
            wait_until(lambda: admission.asked)
        cable.cut()
        if step == "as it is accepted":
            admission.asked[0].accept("victim")
        if step == "right after accept":
            with suppress(ConnectionFailed):  # or it saw the welcome in time
                outcome(welcome)
        else:
            with pytest.raises(WseError):
                outcome(welcome)


class Shuffled:
    """A procedure that answers when so many calls have come, in random order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: list[tuple[asyncio.Future[Any], Any]] = []
        self.order: list[int] = []

    async def __call__(self, *args: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, args[-1]))
        if len(self._waiting) == self._count:
            random.shuffle(self._waiting)
            for waiting, payload in self._waiting:
                self.order.append(payload["n"])
                waiting.set_result({"answer": payload["n"]})
        return await answer


@pytest.mark.parametrize("kind", FLAVOURS)
def test_a_thousand_calls_in_flight_each_way_get_their_own_answers(flavour: str, kind: str) -> None:
    count = 1000
    at_server, at_client = Shuffled(count), Shuffled(count)
    with (
        serve(flavour, setup=lambda server: server.register("ask", at_server)) as served,
        use(kind, served.url) as used,
    ):
        used.client.register("ask", at_client)
        used.connect("ann")
        conn = next(iter(served.server.clients["ann"].conns.values()))
        limit = seconds(30)

        async def all_calls(call: Any) -> list[Any]:
            asks = [call("ask", {"n": n}, timeout=limit) for n in range(count)]
            return list(await asyncio.gather(*asks))

        if flavour == "blocking":
            up = [beside(conn.call, "ask", {"n": n}, timeout=limit) for n in range(count)]
        else:
            up = [beside(served.do, all_calls, conn.call)]
        if kind == "blocking":
            futures = [used.client.submit("ask", {"n": n}, timeout=limit) for n in range(count)]
            down = [future.result(limit) for future in futures]
        else:
            down = used.do(all_calls, used.client.call)
        expected = [{"answer": n} for n in range(count)]
        assert down == expected
        answers = [outcome(future, 30) for future in up]
        assert (answers if flavour == "blocking" else answers[0]) == expected
        for shuffled in (at_server, at_client):
            assert sorted(shuffled.order) == list(range(count))
            assert shuffled.order != list(range(count))
