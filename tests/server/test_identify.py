"""Who gets in: `identify`, challenges, and verdicts that come late."""

import asyncio
import threading
from typing import Any

import pytest

from wse_tornado import (
    ErrorCode,
    HmacChallenge,
    NotAuthorized,
)

from ..support import (
    RawPeer,
    serve,
)
from ..support.loops import connected, listening, record_server, wait_for


async def later_from_the_loop(auth: Any) -> None:
    asyncio.get_running_loop().call_later(0.01, auth.accept, "user", "hello")


def later_from_a_thread(auth: Any) -> None:
    threading.Timer(0.01, auth.accept, ("user", "hello")).start()


async def slowly(auth: Any) -> None:
    await asyncio.sleep(0.01)
    auth.accept("user", "hello")


async def slowly_the_id(auth: Any) -> str:
    await asyncio.sleep(0.01)
    return "user"


@pytest.mark.parametrize(
    ("identify", "welcome"),
    [
        (lambda auth: auth.accept("user", "hello"), "hello"),
        (lambda auth: "user", None),
        (slowly, "hello"),
        (slowly_the_id, None),
        (later_from_the_loop, "hello"),
        (later_from_a_thread, "hello"),
    ],
    ids=["accepts", "returns-the-id", "coroutine", "coroutine-id", "later", "from-a-thread"],
)
def test_identify_accepts_in_every_way(flavour: str, identify: Any, welcome: Any) -> None:
    with serve(flavour, identify=identify) as served, served.peer() as peer:
        peer.hi("key", {"device": "laptop"})
        assert peer.recv_message()[1] == welcome
        user, conn = served.server.clients["user"], served.conn("user")
        assert (conn.cid, conn.identity, conn.meta) == ("user", "key", {"device": "laptop"})
        assert conn.client.cid == user.cid == "user"
        assert dict(user.conns) == {conn.conn_id: conn}
        assert conn.remote_addr == "127.0.0.1"
        assert conn.latency is None
        with pytest.raises(TypeError):
            served.server.clients["mallory"] = user
        with pytest.raises(TypeError):
            del user.conns[conn.conn_id]


def raises(auth: Any) -> None:
    raise KeyError("no such user")


async def test_a_missing_identify_handler_says_what_to_do() -> None:
    async with listening(None) as server:
        events = record_server(server)
        with pytest.raises(NotAuthorized):
            async with connected(server):
                pass
        (error,) = events.of("error")[0]
        assert "pass identify=" in str(error)


async def test_a_handler_that_raises_after_the_client_has_gone_is_told() -> None:
    asked = asyncio.Event()

    async def identify(auth: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError("late") from None

    async with listening(identify) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        await asked.wait()
        peer.kill()
        await wait_for(lambda: not server._hub.connections, events)
        (error,) = await events.wait("error")
        assert error.code == ErrorCode.HANDLER_FAILED


async def test_raising_after_accepting_is_told_and_the_client_stays() -> None:
    def identify(auth: Any) -> None:
        auth.accept("alice")
        raise KeyError("afterwards")

    async with listening(identify) as server:
        events = record_server(server)
        async with connected(server):
            (error,) = await events.wait("error")
            assert error.code == ErrorCode.HANDLER_FAILED
            assert list(server.clients) == ["alice"]


async def test_a_challenge_handler_may_refuse_return_nothing_or_raise() -> None:
    for fn, told in [
        (lambda auth: auth.refuse(), False),
        (lambda auth: None, True),
        (raises, True),
        (lambda auth: object(), True),
    ]:
        async with listening(lambda auth: pytest.fail("identify was asked")) as server:
            events = record_server(server)
            server.use_challenge(fn)
            with pytest.raises(NotAuthorized):
                async with connected(server):
                    pass
            assert events.names() == (["error"] if told else [])


async def quest_slowly(auth: Any) -> Any:
    await asyncio.sleep(0)
    return {"for": auth.identity}


def test_a_coroutine_may_challenge_and_replaces_a_challenge_that_verifies(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.use_challenge(HmacChallenge(lambda identity: "s"))
        server.use_challenge(quest_slowly)

    with serve(flavour, setup=setup) as served, served.peer() as peer:
        peer.hi("ann")
        assert peer.recv_message() == ["~wse:challenge", {"for": "ann"}, None]
        peer.send("~wse:challenge", "no HMAC", None)
        assert peer.recv_message()[0] == "~wse:welcome"
        with pytest.raises(TypeError, match="use_challenge"):
            served.server.use_challenge(lambda: 1)


def test_connected_comes_before_disconnected_whoever_drops_and_whenever() -> None:
    """A verdict may come when no handler runs; what `joined` does then runs at once."""

    def identify(auth: Any) -> None:
        asyncio.get_running_loop().call_soon(auth.accept, auth.identity)

    with serve("async", identify=identify) as served:
        served.server.when.joined(lambda client, meta: client.drop("not today"))
        with served.peer() as peer:
            peer.hi("anna")
            assert peer.wait_closed() == (1000, "not today")
        served.happened("left")
        assert served.names() == ["joined", "connected", "disconnected", "left"]
