"""What an adversarial reading of the code found: each of these once did not hold."""

import asyncio
import resource
import socket
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    ConnectionFailed,
    JsonProtocol,
    Limits,
    Protocol,
    RpcFailed,
    WseError,
)

from .support import RawPeer, Served, seconds, serve, wait_until
from .support.clients import use

pytestmark = pytest.mark.timeout(20)


def enter(served: Served, user: str = "anna") -> RawPeer:
    """A raw peer that has been let in."""
    peer = served.peer()
    peer.hi(user)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


# -- exceptions of handlers


def raise_cancelled(*_args: Any) -> None:
    raise asyncio.CancelledError  # what the result() of a cancelled future raises


def raise_unprintable(*_args: Any) -> None:
    raise Unprintable


@pytest.mark.parametrize("fail", [raise_cancelled, raise_unprintable])
@pytest.mark.parametrize("what", ["handler", "signal", "procedure"])
def test_no_exception_of_a_plain_function_harms_its_connection(
    flavour: str, what: str, fail: Any
) -> None:
    def setup(server: Any) -> None:
        if what == "handler":
            server.channel.on("go", fail)
        elif what == "signal":
            server.when.connected(fail)
        else:
            server.register("go", fail)
        server.register("echo", lambda conn, payload: payload)

    with serve(flavour, setup=setup) as served, enter(served) as peer:
        if what == "procedure":
            peer.send("go", None, "1")
            answer = peer.recv_message()
            assert answer[0] == "~wse:response-err"
            assert answer[2] == "1"
        else:
            peer.send("go", None, None)
        peer.send("echo", 5, "2")
        assert peer.recv_message() == ["~wse:response", 5, "2"]
        peer.send("go", None, None)
        wait_until(lambda: "error" in served.names())


@pytest.mark.parametrize("fail", [raise_cancelled, raise_unprintable])
def test_an_identity_that_cannot_be_had_ends_the_connect(flavour: str, fail: Any) -> None:
    with serve(flavour) as served, use(flavour, served.url, reconnect=True, timeout=60) as used:
        with pytest.raises(ConnectionFailed):
            used.connect(fail)


def test_an_awaited_identity_that_is_cancelled_ends_the_connect(flavour: str) -> None:
    async def identity() -> Any:
        token: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        token.cancel()
        return await token

    with serve(flavour) as served, use(flavour, served.url, timeout=60) as used:
        with pytest.raises(ConnectionFailed):
            used.connect(identity)


class Fussy(JsonProtocol):
    """Raises an error of the library's kind for what it does not like."""

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
        if payload == "odd":
            raise WseError("app.odd", {}, "an odd payload")
        return super().pack(type, payload, stamp)


def test_whatever_a_protocol_raises_the_caller_gets_an_answer(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("odd", lambda conn, payload: "odd")

    protocol: Protocol = Fussy()
    with serve(flavour, setup=setup, protocol=protocol) as served, enter(served) as peer:
        peer.send("odd", None, "1")
        assert peer.recv_message()[0] == "~wse:response-err"


# -- closing and jumping


def test_a_jump_that_cannot_begin_leaves_the_connection_alone(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        used.connect("anna")
        with pytest.raises(TypeError):
            used.do(used.client.jump, served.url, meta="no dictionary")
        with pytest.raises(ValueError):
            used.do(used.client.jump, served.url, timeout=-1)
        used.send("hello", 1)
        wait_until(lambda: ("ignored", "hello", 1) in served.events)


@pytest.mark.parametrize(
    ("code", "reason"), [(70000, "x"), (1006, "x"), (999, "x"), (1000, None), ("1000", "x")]
)
def test_a_close_that_cannot_be_sent_is_refused_and_can_be_repeated(
    flavour: str, code: Any, reason: Any
) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        used.connect("anna")
        with pytest.raises((ValueError, TypeError)):
            used.do(used.client.close, code, reason)
        used.send("hello", 1)
        wait_until(lambda: ("ignored", "hello", 1) in served.events)
        used.close()
        wait_until(lambda: used.closings() == [(1000, "wse.by-client")])


def test_a_drop_whose_reason_is_no_text_does_not_leave_a_half_closed_connection() -> None:
    with serve("async") as served, enter(served) as peer:
        conn = next(iter(served.core.connections.values()))
        with pytest.raises(Exception):
            served.do(conn.drop, 5)
        served.do(conn.drop)
        assert peer.wait_closed() == (1000, "wse.by-server")


def test_errors_of_a_closed_client_do_not_grow() -> None:
    async def main() -> None:
        client = AsyncWseClient("ws://127.0.0.1:1")
        with pytest.raises(ConnectionFailed):
            await client.connect()
        depths = []
        for _ in range(20):
            with pytest.raises(WseError) as caught:
                await client.receive()
            depths.append(len(caught.traceback))
        assert depths[-1] == depths[0]

    asyncio.run(main())


# -- getting in


def test_connected_comes_before_disconnected_whoever_drops_and_whenever() -> None:
    """A verdict may come when no handler runs; what `joined` does then runs at once."""

    def identify(auth: Any) -> None:
        asyncio.get_running_loop().call_soon(auth.accept, auth.identity)

    with serve("async", identify=identify) as served:
        served.server.when.joined(lambda client, meta: client.drop("not today"))
        with served.peer() as peer:
            peer.hi("anna")
            assert peer.wait_closed() == (1000, "not today")
        wait_until(lambda: "left" in served.names())
        assert served.names() == ["joined", "connected", "disconnected", "left"]


def test_frames_beyond_one_read_that_come_with_the_request_are_not_lost() -> None:
    def setup(server: Any) -> None:
        server.register("size", lambda conn, payload: len(payload))

    with serve("async", setup=setup) as served:
        made = RawPeer(socket.socket(), masks=True)
        hi = made.frame(1, b'["~wse:hi",{"identity":"anna"},null]')
        call = made.frame(1, b'["size","' + b"x" * 30_000 + b'","s"]')
        made.sock.close()
        with served.peer(early=hi + call * 4) as peer:
            assert peer.recv_message()[0] == "~wse:welcome"
            for _ in range(4):
                assert peer.recv_message() == ["~wse:response", 30_000, "s"]


def test_a_connection_that_finds_no_descriptor_leaves_no_ghost() -> None:
    """The handshake takes the last descriptor, and the bare socket would need one more."""
    with serve("async") as served:
        sock = socket.create_connection(("127.0.0.1", served.port))
        sock.settimeout(seconds(10))
        wait_until(lambda: served.do(lambda: len(served.core._http_servers[0]._connections)) == 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = socket.socket()
        highest = spare.fileno()
        spare.close()
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: wse-default-json\r\n\r\n"[:-2]
        )
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            sock.sendall(b"\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 101")
            peer = RawPeer(sock, masks=True)
            peer.hi("anna")
            assert peer.recv_message()[0] == "~wse:welcome"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peer.close()
        wait_until(lambda: not served.core._open)


# -- bounds


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
