"""A client's arguments, and how a connect may end."""

import asyncio
from typing import Any

import pytest
import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import (
    AlreadyConnected,
    AsyncWseClient,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    NotAuthorized,
    NotSerializable,
    ProtocolError,
    Status,
)

from ..support import (
    QUICK,
    RawPeer,
    RawServer,
    seconds,
    serve,
    use,
)
from ..support.loops import client_of, connected, listening, record_client


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:4200",
        "http://localhost:4200",
        "https://localhost",
        "ws://",
        "ws:///path",
        "ws://host:port",
        "ws://host:70000",
        "ws://host:0",
        "ws://[::1",
        None,
        5,
        b"ws://localhost",
    ],
    ids=repr,
)
def test_a_wrong_url_is_refused_at_once(url: Any) -> None:
    with pytest.raises(ValueError, match=r"such as ws://localhost:4200"):
        AsyncWseClient(url)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "20"}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"generation": "oldest"}, ValueError),
        ({"reconnect": 5}, TypeError),
        ({"reconnect": "yes"}, TypeError),
        ({"protocol": "json"}, TypeError),
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        AsyncWseClient("ws://localhost:4200", **options)


async def test_a_url_function_that_returns_no_url_fails_the_connect() -> None:
    client = AsyncWseClient(lambda: "http://localhost")
    with pytest.raises(ConnectionFailed, match="not a WebSocket URL"):
        await client.connect("alice")
    assert client.status is Status.OFFLINE


async def test_a_refused_port_is_connection_failed() -> None:
    (sock,) = bind_sockets(0, "127.0.0.1")
    port = sock.getsockname()[1]
    sock.close()
    client = client_of(f"ws://127.0.0.1:{port}")
    with pytest.raises(
        ConnectionFailed, match=rf"^cannot reach ws://127\.0\.0\.1:{port}: "
    ) as error:
        await client.connect("alice")
    assert isinstance(error.value, ConnectionError)
    assert "\n" not in str(error.value)
    assert client.status is Status.OFFLINE


async def test_an_unknown_host_is_connection_failed() -> None:
    client = client_of("ws://no-such-host.invalid")
    with pytest.raises(ConnectionFailed, match=r"cannot reach ws://no-such-host\.invalid"):
        await client.connect("alice")


async def test_a_page_that_is_no_websocket_is_connection_failed() -> None:
    http = HTTPServer(tornado.web.Application([], log_function=lambda handler: None))
    (sock,) = bind_sockets(0, "127.0.0.1")
    http.add_socket(sock)
    url = f"ws://127.0.0.1:{sock.getsockname()[1]}/nothing"
    try:
        client = client_of(url)
        with pytest.raises(ConnectionFailed, match="answered with HTTP 404") as error:
            await client.connect("alice")
        assert error.value.details == {"status": 404}
    finally:
        http.stop()
        await http.close_all_connections()


async def test_connecting_twice_is_refused() -> None:
    async with listening() as server, connected(server) as client:
        with pytest.raises(AlreadyConnected, match="the client is READY already"):
            await client.connect("alice")
        assert client.status is Status.READY
        await client.close()
        other = client_of(server)
        first = asyncio.ensure_future(other.connect("alice"))
        await asyncio.sleep(0)
        with pytest.raises(AlreadyConnected, match="the client is CONNECTING already"):
            await other.connect("alice")
        await first
        await other.close()


async def test_a_server_that_never_answers_is_a_connect_timeout() -> None:
    silent = asyncio.Event()

    async def keep_quiet(reader: Any, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(keep_quiet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = client_of(f"ws://127.0.0.1:{port}")
    with pytest.raises(ConnectTimeout) as error:
        await client.connect("alice", timeout=0.3)
    assert isinstance(error.value, TimeoutError)
    assert client.status is Status.OFFLINE
    silent.set()
    server.close()
    await server.wait_closed()


async def test_a_server_that_never_welcomes_is_a_connect_timeout() -> None:
    async with listening(lambda auth: None) as server:
        client = client_of(server)
        with pytest.raises(ConnectTimeout, match="did not let the client in in time"):
            await client.connect("alice", timeout=0.3)
        assert client.status is Status.OFFLINE
        await client.close()


async def test_a_server_that_talks_nonsense_is_a_protocol_error() -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send_text("nonsense")
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url)
        events = record_client(client)
        with pytest.raises(ProtocolError, match="does not decode"):
            await client.connect("alice")
        assert events.of("closed") == [(1000, "wse.protocol-error")]
        await client.close()


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_a_server_that_hangs_up_is_connection_failed(code: int) -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.close(code, "not today")

    with RawServer(script) as server:
        client = client_of(server.url)
        with pytest.raises(ConnectionFailed, match=f"{code} not today") as error:
            await client.connect("alice")
        assert error.value.details == {"code": code, "reason": "not today"}
        await client.close()


async def test_what_cannot_be_packed_fails_the_connect_before_any_socket() -> None:
    client = client_of("ws://127.0.0.1:9")
    with pytest.raises(NotSerializable):
        await client.connect({1, 2})
    assert client.status is Status.OFFLINE
    with pytest.raises(TypeError, match="meta is a dictionary"):
        await client.connect("alice", ["meta"])  # type: ignore[arg-type]
    with pytest.raises(ConnectionFailed, match="meta is a dictionary"):
        await client.connect("alice", lambda: ["meta"])  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")], ids=repr)
async def test_a_time_out_that_makes_no_sense_is_refused(timeout: Any) -> None:
    async with listening() as server, connected(server) as client:
        with pytest.raises(ValueError, match="above 0"):
            await client.call("add", timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        await client.connect("alice", timeout=timeout)
    assert client.status is Status.OFFLINE


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_cancelled(*_args: Any) -> None:
    raise asyncio.CancelledError  # what the result() of a cancelled future raises


def raise_unprintable(*_args: Any) -> None:
    raise Unprintable


def raise_key_error() -> None:
    raise KeyError("no token")


async def await_cancelled() -> Any:
    token: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    token.cancel()
    return await token


@pytest.mark.parametrize(
    "identity", [raise_key_error, raise_cancelled, raise_unprintable, await_cancelled]
)
def test_an_identity_that_cannot_be_had_ends_the_connect(flavour: str, identity: Any) -> None:
    with serve(flavour) as served, use(flavour, served.url, reconnect=True, timeout=60) as used:
        with pytest.raises(ConnectionFailed) as error:
            used.connect(identity)
        if identity is raise_key_error:
            assert isinstance(error.value.__cause__, KeyError)


async def test_headers_go_with_the_handshake() -> None:
    seen: list[Any] = []

    def identify(auth: Any) -> str:
        seen.append(auth.request.headers["X-Token"])
        return "alice"

    async with listening(identify) as server:
        client = client_of(server, headers={"X-Token": "abc"})
        await client.connect()
        await client.close()
    assert seen == ["abc"]


def no_key(quest: Any) -> None:
    raise ValueError("no key")


@pytest.mark.parametrize("reconnect", [False, QUICK], ids=["once", "reconnect"])
def test_connect_returns_when_no_solver_answers_the_challenge(flavour: str, reconnect: Any) -> None:
    with (
        serve(flavour, setup=lambda server: server.use_challenge(lambda auth: "quest")) as served,
        use(flavour, served.url, reconnect=reconnect, timeout=seconds(20)) as used,
    ):
        with pytest.raises(NotAuthorized, match=r"set one with client\.challenge") as caught:
            used.connect("ann")
        assert caught.value.code == ErrorCode.INVALID_CRA_HANDLER
        used.client.challenge(no_key)
        with pytest.raises(NotAuthorized, match=r"the challenge solver raised.*no key"):
            used.connect("ann")
        used.client.challenge(lambda quest: object())
        with pytest.raises(NotAuthorized, match="the challenge solver raised"):
            used.connect("ann")
        assert not served.server.clients


async def test_a_solver_that_outlives_its_connection_changes_nothing() -> None:
    async with listening() as server:
        server.use_challenge(lambda auth: 41)
        gate = asyncio.Event()
        began = asyncio.Event()
        client = client_of(server)

        @client.challenge
        async def solve(quest: Any) -> Any:
            began.set()
            await gate.wait()
            return 1

        connecting = asyncio.ensure_future(client.connect("alice"))
        await began.wait()
        await client.close()
        with pytest.raises(ConnectionFailed):
            await connecting
        gate.set()
        await asyncio.sleep(0)
        assert client.status is Status.OFFLINE


def test_a_solver_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="challenge"):
        AsyncWseClient("ws://localhost").challenge(lambda: None)


async def test_cancelling_a_connect_leaves_the_client_offline() -> None:
    async with listening(lambda auth: None) as server:
        client = client_of(server)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.connect("alice"), 0.2)
        assert client.status is Status.OFFLINE
        await client.close()


@pytest.mark.parametrize("status", ["IDLE", "OFFLINE"])
def test_talking_without_a_connection_names_the_way_out(flavour: str, status: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        if status == "OFFLINE":
            used.connect("ann")
            used.close()
        client, again = used.client, "again" if status == "OFFLINE" else "first"
        uses = [lambda: client.send("a", 1), lambda: client.call("add"), client.receive]
        uses += [lambda: client.wait_for("a"), client.wait_ready]
        if flavour == "blocking":
            uses.append(lambda: client.submit("add"))
            assert list(client) == []
        for each in uses:
            with pytest.raises(ConnectionNotReady, match=rf"{status}|{again}|closed"):
                used.do(each)
        assert used.do(client.wait) is True
