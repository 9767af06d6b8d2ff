"""Leaving in order: ``stop(grace=)`` while calls run."""

import asyncio
import threading
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from wse_tornado import Limits

from ..support import Closed, RawPeer, Served, beside, outcome, seconds, serve, wait_until

RESTART = (1012, "wse.server-stopping")


class Held:
    """A procedure that returns when it is told to."""

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.running = 0
        self.release = threading.Event()

    def __call__(self, server: Any) -> None:
        server.register("quick", lambda conn, payload: payload)
        if self.flavour == "blocking":

            @server.register("held")
            def held(conn: Any, payload: Any) -> Any:
                self.running += 1
                self.release.wait(seconds(20))
                return payload
        else:

            @server.register("held")
            async def held(conn: Any, payload: Any) -> Any:
                self.running += 1
                while not self.release.is_set():
                    await asyncio.sleep(0.01)
                return payload


def stopping(served: Served, grace: float) -> Any:
    """A future of ``stop(grace)``, which has begun."""
    future = beside(served.do, served.server.stop, grace)
    served.stopping()
    return future


def test_within_the_grace_calls_are_finished_and_new_ones_served(flavour: str) -> None:
    held = Held(flavour)
    with serve(flavour, setup=held) as served, served.enter() as peer:
        peer.send("held", "late", "s1")
        wait_until(lambda: held.running)
        future = stopping(served, seconds(20))
        with pytest.raises(OSError):
            RawPeer.connect(served.port)
        peer.send("quick", "meanwhile", "s2")
        assert peer.recv_message() == ["~wse:response", "meanwhile", "s2"]
        assert not future.done()
        held.release.set()
        assert peer.recv_message() == ["~wse:response", "late", "s1"]
        assert peer.wait_closed() == RESTART
        outcome(future)
        assert not served.server.clients
        assert served.stats()["calls_served"]["ok"] == 2


def test_after_the_grace_a_late_result_goes_nowhere(flavour: str) -> None:
    held = Held(flavour)
    with serve(flavour, setup=held) as served, served.enter() as peer:
        peer.send("held", "late", "s1")
        wait_until(lambda: held.running)
        future = stopping(served, 0.05)
        assert peer.wait_closed() == RESTART
        outcome(future)
        held.release.set()
        if flavour == "async":  # a blocking server that has stopped looks at nothing any more
            wait_until(lambda: not served.stats()["calls_running"])
        assert "error" not in served.names()
        assert served.stats()["calls_served"]["ok"] == 0


def test_the_call_of_a_peer_that_vanishes_is_not_waited_for(flavour: str) -> None:
    held = Held(flavour)
    with serve(flavour, setup=held) as served:
        peer = served.enter()
        peer.send("held", None, "s1")
        wait_until(lambda: held.running)
        future = stopping(served, seconds(60))
        peer.kill()
        outcome(future)
        held.release.set()


def test_two_who_stop_at_once_both_return(flavour: str) -> None:
    held = Held(flavour)
    with serve(flavour, setup=held) as served, served.enter() as peer:
        peer.send("held", None, "s1")
        wait_until(lambda: held.running)
        futures = [stopping(served, seconds(20)) for _ in range(2)]
        held.release.set()
        assert peer.recv_message()[0] == "~wse:response"
        assert peer.wait_closed() == RESTART
        for future in futures:
            outcome(future)


def test_without_a_grace_running_calls_are_not_waited_for(flavour: str) -> None:
    held = Held(flavour)
    with serve(flavour, setup=held) as served, served.enter() as peer:
        peer.send("held", None, "s1")
        wait_until(lambda: held.running)
        future = beside(served.do, served.server.stop)
        with pytest.raises(Closed, match="1012"):
            peer.recv()
        outcome(future)
        held.release.set()


def test_a_stop_that_is_given_up_can_be_repeated() -> None:
    held = Held("async")
    with serve("async", setup=held) as served, served.enter() as peer:
        peer.send("held", None, "s1")
        wait_until(lambda: held.running)

        async def give_up() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(served.server.stop(60), 0.05)

        served.do(give_up)
        held.release.set()
        assert peer.recv_message()[0] == "~wse:response"
        future = stopping(served, 0)
        assert peer.wait_closed() == RESTART
        outcome(future)


def levels(served: Served) -> list[Any]:
    """What a connection would change."""
    stats = served.stats()
    return [stats[name] for name in ("connections", "users", "strangers", "messages", "closings")]


@pytest.mark.parametrize(
    ("why", "closing"),
    [
        ("stopped", RESTART),
        ("full", (1013, "wse.server-full")),
        ("another protocol", (1000, "wse.protocol-error")),
    ],
)
def test_who_is_turned_away_at_the_door_leaves_no_trace(why: str, closing: tuple[int, str]) -> None:
    """In an application that is not the server's own, and so goes on listening."""
    limits = Limits(max_connections=1)
    with serve("async", limits=limits) as served:

        def mount() -> tuple[HTTPServer, int]:
            http = HTTPServer(Application(served.server.routes("/ws")))
            sockets = bind_sockets(0, "127.0.0.1")
            http.add_sockets(sockets)
            return http, sockets[0].getsockname()[1]

        http, port = served.do(mount)
        inside = None
        try:
            if why == "stopped":
                outcome(beside(served.do, served.server.stop))
            elif why == "full":
                inside = served.enter()
            before = levels(served)
            protocols = "other" if why == "another protocol" else "wse-default-json"
            with RawPeer.connect(port, path="/ws", protocols=protocols) as peer:
                peer.hi("eve")  # too late: nobody looks at it
                peer.send_frame(9, b"ping")
                peer.send_frame(10, b"pong")
                assert peer.wait_closed() == closing
            assert levels(served) == before
            assert not [name for name in served.names() if name == "error"]
        finally:
            served.do(http.stop)
            served.do(http.close_all_connections)
            if inside is not None:
                inside.close()
        served.sockets(0)
