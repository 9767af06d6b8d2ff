"""Moving to another server."""

import threading
from typing import Any

import pytest

from wse_tornado import ConnectionFailed, ConnectionNotReady, NotAuthorized

from ..support import (
    NEVER,
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


def test_jump_goes_to_the_new_server_and_comes_back_there(flavour: str) -> None:
    said: list[Any] = []

    def script(peer: RawPeer) -> None:
        said.append(let_in(peer, len(said)))
        if len(said) == 1:
            peer.kill()
        else:
            peer.wait_closed()

    with serve(flavour) as old, RawServer(script) as new:
        with use(flavour, old.url, reconnect=QUICK) as used:
            used.connect("ann", {"seat": 1})
            message = beside(used.do, used.client.wait_for, "never", timeout=seconds(20))
            assert used.do(used.client.jump, new.url, "bob", {"seat": 2}) == 0
            used.happened("ready", 1)
            assert not message.done()  # who waits for messages goes on waiting
            used.close()
            with pytest.raises(ConnectionNotReady):
                outcome(message)
        assert said == [{"identity": "bob", "meta": {"seat": 2}}] * 2
        wait_until(lambda: ("left", "ann", 4000, "jump") in old.events)


def test_jump_out_of_a_backoff(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.kill()

    with RawServer(script) as old, serve(flavour) as new:
        with use(flavour, old.url, reconnect=NEVER) as used:
            used.connect("ann")
            used.has_status("RE_CONNECTING")
            assert used.do(used.client.jump, new.url) == {"message": "Welcome!"}
            assert list(new.server.clients) == ["ann"]
        assert len(old.peers) == 1


def test_a_jump_that_fails_is_raised(flavour: str) -> None:
    with serve(flavour) as old, serve(flavour) as new, use(flavour, old.url) as used:
        used.connect("ann")
        with pytest.raises(NotAuthorized):
            used.do(used.client.jump, new.url, "nobody")
        assert str(used.client.status) == "OFFLINE"
        with pytest.raises(ValueError):
            used.do(used.client.jump, "http://localhost")
        with pytest.raises(ConnectionFailed):
            used.do(used.client.jump, "ws://127.0.0.1:1")


def test_a_jump_that_cannot_begin_leaves_the_connection_alone(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        used.connect("ann")
        jump = used.client.jump
        with pytest.raises(TypeError):
            used.do(jump, served.url, meta="no dictionary")
        with pytest.raises(ValueError):
            used.do(jump, served.url, timeout=-1)
        with pytest.raises(ValueError, match="not a WebSocket URL"):
            used.do(jump, "http://elsewhere")
        used.send("hello", 1)
        served.happened("ignored", "hello", 1)


def test_jump_connects_a_client_that_is_idle(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, "ws://127.0.0.1:9") as used:
        used.do(used.client.jump, served.url, "ann")
        assert list(served.server.clients) == ["ann"]


def test_jump_ends_a_connect_that_is_under_way(flavour: str) -> None:
    met = threading.Event()

    def script(peer: RawPeer) -> None:
        peer.recv()
        met.set()
        stay(peer)

    with RawServer(script) as silent, serve(flavour) as served:
        with use(flavour, silent.url) as used:
            connecting = beside(used.connect, "ann", timeout=seconds(30))
            assert met.wait(seconds(5))
            used.do(used.client.jump, served.url)
            with pytest.raises(ConnectionFailed):
                outcome(connecting)
            assert list(served.server.clients) == ["ann"]
