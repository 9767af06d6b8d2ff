"""AsyncWseClient over real sockets: connecting, errors, signals, receiving, coming back."""

import asyncio
import gc
import threading
from typing import Any

import pytest
import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import (
    AlreadyConnected,
    AsyncWseClient,
    AsyncWseServer,
    Backoff,
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    ErrorCode,
    HmacChallenge,
    HmacSolver,
    Limits,
    Message,
    NotAuthorized,
    NotSerializable,
    ProtocolError,
    Reason,
    ReceiveTimeout,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    Status,
    WaitTimeout,
    WseError,
)

from ..support import RawPeer, RawServer, seconds
from ..support.servers import accept_all
from .conftest import connected, listening, record_client, url_of

QUICK = Backoff(initial=0.01, maximum=0.05)


def client_of(where: Any, **options: Any) -> AsyncWseClient:
    options.setdefault("timeout", seconds(10))
    return AsyncWseClient(where if isinstance(where, str) else url_of(where), **options)


def let_in(peer: RawPeer, welcome: Any = None) -> Any:
    """The server's part of getting in, on a raw peer: what the client said."""
    hi = peer.recv_message()
    peer.send("~wse:welcome", welcome, None)
    return hi


async def in_thread(fn: Any, *args: Any) -> Any:
    return await asyncio.to_thread(fn, *args)


# -- wrong use, and what cannot be reached


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


async def test_a_refused_identity_is_not_authorized() -> None:
    async with listening() as server:
        client = client_of(server)
        events = record_client(client)
        with pytest.raises(NotAuthorized, match="the server refused this identity") as error:
            await client.connect("nobody")
        assert isinstance(error.value, PermissionError)
        assert error.value.code == ErrorCode.NOT_AUTHORIZED
        assert client.status is Status.OFFLINE
        assert events.of("closed") == [(1000, "wse.not-authorized")]
        assert "ready" not in events.names()


async def test_a_refused_identity_is_final_with_reconnect_on() -> None:
    async with listening() as server:
        client = client_of(server, reconnect=QUICK)
        with pytest.raises(NotAuthorized):
            await client.connect("nobody")
        assert client.status is Status.OFFLINE


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


async def test_a_server_of_another_protocol_is_a_protocol_error() -> None:
    with RawServer(lambda peer: peer.wait_closed() and None, protocol=None) as server:
        client = client_of(server.url)
        with pytest.raises(ProtocolError, match="does not speak 'wse-default-json'"):
            await client.connect("alice")
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


async def test_the_welcome_is_what_connect_returns() -> None:
    async with listening() as server:
        client = client_of(server)
        assert await client.connect("alice") == {"message": "Welcome!"}
        await client.close()


@pytest.mark.parametrize("status", [Status.IDLE, Status.OFFLINE])
async def test_talking_before_connecting_is_connection_not_ready(status: Status) -> None:
    async with listening() as server:
        client = client_of(server)
        if status is Status.OFFLINE:
            await client.connect("alice")
            await client.close()
        for attempt in (lambda: client.send("a", 1), lambda: client.call("add")):
            with pytest.raises(ConnectionNotReady, match=rf"cannot .* {status}; call connect\(\)"):
                result = attempt()
                await result  # type: ignore[misc]
        for waiting in (client.receive(), client.wait_for("a"), client.wait_ready()):
            with pytest.raises(ConnectionNotReady):
                await waiting
        assert await client.wait() is True
        assert [message async for message in client] == []


@pytest.mark.parametrize("type", ["", None, "~wse:hi", "~wse:mine", 0, [], True], ids=repr)
async def test_reserved_and_empty_types_are_refused(type: Any) -> None:
    async with listening() as server, connected(server) as client:
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            client.send(type, 1)
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            await client.wait_for(type)
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            client.channel.on(type, print)
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            await client.call(type)
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            client.register(type, print)
        assert client.status is Status.READY


@pytest.mark.parametrize("payload", [object(), {1}, float("nan"), b"x"], ids=repr)
async def test_payloads_that_json_cannot_hold_are_refused_and_nothing_is_sent(payload: Any) -> None:
    async with listening() as server:
        got: list[Any] = []
        server.channel.on("mark", lambda conn, payload: got.append(payload))
        server.channel.on("bad", lambda conn, payload: got.append(payload))
        server.register("bad", lambda conn, payload: got.append(payload))
        server.register("sync", lambda conn, payload: None)
        async with connected(server) as client:
            with pytest.raises(NotSerializable):
                client.send("bad", payload)
            with pytest.raises(NotSerializable):
                await client.call("bad", payload)
            client.send("mark", 1)
            await client.call("sync")
            assert got == [1]


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")], ids=repr)
async def test_a_time_out_that_makes_no_sense_is_refused(timeout: Any) -> None:
    async with listening() as server, connected(server) as client:
        with pytest.raises(ValueError, match="above 0"):
            await client.call("add", timeout=timeout)
    with pytest.raises(ValueError, match="above 0"):
        await client.connect("alice", timeout=timeout)
    assert client.status is Status.OFFLINE


# -- identity, meta, URL, headers


async def test_identity_meta_and_url_may_be_functions_asked_at_every_connect() -> None:
    asked: list[str] = []

    def url() -> str:
        asked.append("url")
        return url_of(server)

    async def identity() -> str:
        asked.append("identity")
        return "alice"

    def meta() -> dict[str, Any]:
        asked.append("meta")
        return {"device": len(asked)}

    async with listening() as server:
        metas: list[Any] = []
        server.when.joined(lambda client, meta: metas.append(meta))
        client = AsyncWseClient(url, reconnect=QUICK, timeout=seconds(10))
        events = record_client(client)
        await client.connect(identity, meta)
        (conn,) = server.clients["alice"].conns.values()
        conn.close(1012, "")
        await events.wait("ready", 2)
        assert asked == ["url", "identity", "meta"] * 2
        assert metas == [{"device": 3}, {"device": 6}]
        await client.close()


async def test_an_identity_function_that_raises_fails_the_connect() -> None:
    def identity() -> str:
        raise KeyError("no token")

    client = client_of("ws://127.0.0.1:9")
    with pytest.raises(ConnectionFailed, match="KeyError") as error:
        await client.connect(identity)
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


# -- signals


async def test_the_signals_tell_the_whole_story_in_order() -> None:
    async with listening() as server:
        client = client_of(server)
        events = record_client(client)
        await client.connect("alice")
        server.send("alice", "unheard", {"n": 1})
        await events.wait("ignored")
        server.drop_client("alice", "the end")
        await events.wait("closed")
    assert events == [
        ("updated", "IDLE"),
        ("updated", "CONNECTING"),
        ("connected",),
        ("updated", "READY"),
        ("ready", {"message": "Welcome!"}),
        ("ignored", "unheard", {"n": 1}),
        ("closed", 1000, "the end"),
        ("updated", "OFFLINE"),
    ]
    assert client.closed_with == (1000, "the end")


async def test_late_subscribers_get_the_last_ready_and_updated() -> None:
    async with listening() as server, connected(server) as client:
        late: list[Any] = []
        client.when.ready(late.append)
        client.when.updated(late.append)
        assert late == [{"message": "Welcome!"}, Status.READY]
        await client.close()
        later: list[Any] = []
        client.when.ready(later.append)
        client.when.updated(later.append)
        assert later == [Status.OFFLINE]


def test_subscribing_needs_no_loop() -> None:
    client = AsyncWseClient("ws://localhost:4200")
    seen: list[Any] = []
    client.when.updated(seen.append)

    @client.when.updated
    async def updated(status: Status) -> None:
        seen.append(str(status))

    async def main() -> None:
        async with listening() as server:
            client._url = url_of(server)
            await client.connect("alice")
            await client.close()

    asyncio.run(main())
    assert [str(status) for status in seen] == [
        *["IDLE", "IDLE", "CONNECTING", "CONNECTING"],
        *["READY", "READY", "OFFLINE", "OFFLINE"],
    ]


async def test_a_replay_from_another_thread_never_comes_after_a_newer_event() -> None:
    async with listening() as server, connected(server) as client:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: client.when.updated(seen.append))
        thread.start()
        thread.join()  # subscribed; the replay waits for the loop, which this blocks
        client.drop()
        await client.close()
        assert seen[-1] == Status.OFFLINE


async def test_a_handler_that_raises_goes_to_error_and_ends_nothing() -> None:
    async with listening() as server, connected(server) as client:
        events = record_client(client)

        @client.channel.on("bad")
        def bad(payload: Any) -> None:
            raise KeyError(payload)

        @client.channel.on("worse")
        async def worse(payload: Any) -> None:
            await asyncio.sleep(0)
            raise KeyError(payload)

        server.broadcast("bad", 1)
        server.broadcast("worse", 2)
        await events.wait("error", 2)
        codes = [error.code for (error,) in events.of("error")]
        assert codes == [ErrorCode.HANDLER_FAILED] * 2
        assert "bad" in str(events.of("error")[0][0])
        assert client.status is Status.READY


async def test_without_a_listener_errors_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server, connected(server) as client:
        client.channel.on("bad", lambda payload: 1 / 0)
        server.broadcast("bad")
        await client_sync(server, client)
        (record,) = [r for r in caplog.records if r.name == "wse_tornado.client"]
        assert record.levelname == "ERROR"
        assert record.exc_info is not None
        assert "ZeroDivisionError" in record.getMessage()


async def test_a_handler_of_errors_that_raises_is_logged_and_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as server, connected(server) as client:
        calls: list[Any] = []

        @client.when.error
        def error(error: WseError) -> None:
            calls.append(error)
            raise ValueError("in the handler of errors")

        client.channel.on("bad", lambda payload: 1 / 0)
        server.broadcast("bad")
        await client_sync(server, client)
        assert len(calls) == 1
        assert "a handler of errors, raised" in caplog.text


async def client_sync(server: AsyncWseServer, client: AsyncWseClient) -> None:
    """Everything the server has sent before is here and handled when this returns."""
    if "sync" not in server.endpoint.procedures:
        server.register("sync", lambda conn, payload: None)
    await client.call("sync")


# -- talking


async def test_handlers_run_in_order_and_a_suspended_one_holds_up_the_next() -> None:
    async with listening() as server, connected(server) as client:
        log: list[Any] = []
        gate = asyncio.Event()
        over = asyncio.Event()

        @client.channel.on("slow")
        async def slow(payload: Any) -> None:
            log.append("slow began")
            await gate.wait()
            log.append("slow ended")

        client.channel.on("quick", lambda payload: (log.append("quick"), over.set()))
        server.broadcast("slow")
        server.broadcast("quick")
        await client_sync(server, client)  # answers overtake
        assert log == ["slow began"]
        gate.set()
        await over.wait()
        assert log == ["slow began", "slow ended", "quick"]


async def test_calls_return_raise_and_time_out() -> None:
    async with listening() as server:
        server.register("add", lambda conn, p: p["a"] + p["b"])

        @server.register("fail")
        async def fail(conn: Any, payload: Any) -> None:
            raise WseError("shop.sold-out", {"left": 0})

        @server.register("hang")
        async def hang(conn: Any, payload: Any) -> None:
            await asyncio.Event().wait()

        server.register("crash", lambda conn, payload: {}["x"])
        server.register("odd", lambda conn, payload: object())
        server_errors: list[Any] = []
        server.when.error(lambda error, conn: server_errors.append(error.code))
        async with connected(server) as client:
            assert await client.call("add", {"a": 5, "b": 3}) == 8
            with pytest.raises(RpcFailed) as failed:
                await client.call("fail")
            assert (failed.value.code, failed.value.details["left"]) == ("shop.sold-out", 0)
            with pytest.raises(RpcFailed, match="'x'") as crashed:
                await client.call("crash")
            assert crashed.value.code == ErrorCode.RP_EXECUTION_FAILED
            with pytest.raises(RpcFailed, match="cannot be packed"):
                await client.call("odd")
            with pytest.raises(RpcNotRegistered):
                await client.call("nothing")
            with pytest.raises(RpcTimeout, match=r"'hang' within 0\.05 s"):
                await client.call("hang", timeout=0.05)
            hanging = asyncio.ensure_future(client.call("hang"))
            await client_sync(server, client)
            server.drop_client("alice", "out")
            with pytest.raises(RpcDisconnected) as gone:
                await hanging
            assert gone.value.details == {"disconnected": [1000, "out"]}
            assert gone.value.sent
        assert server_errors == [ErrorCode.RP_EXECUTION_FAILED] * 2


async def test_a_cancelled_call_is_forgotten() -> None:
    async with listening() as server, connected(server) as client:
        gate = asyncio.Event()

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> int:
            await gate.wait()
            return 1

        call = asyncio.ensure_future(client.call("slow"))
        await client_sync(server, client)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.link is not None
        assert len(client.link.pending) == 0
        gate.set()
        await client_sync(server, client)  # its late answer is dropped in silence
        assert client.status is Status.READY


async def test_the_server_calls_procedures_of_the_client() -> None:
    async with listening() as server:
        async with connected(server) as client:

            @client.register("where")
            async def where(payload: Any) -> Any:
                await asyncio.sleep(0)
                return {"at": payload}

            (conn,) = server.clients["alice"].conns.values()
            assert await conn.call("where", "home") == {"at": "home"}
            client.unregister("where")
            with pytest.raises(RpcNotRegistered):
                await conn.call("where")
            with pytest.raises(ValueError, match="above 0"):
                await conn.call("where", timeout=0)


async def test_a_handler_may_call_the_other_end_while_it_runs() -> None:
    async with listening() as server, connected(server) as client:
        server.register("add", lambda conn, p: p + 1)
        results: asyncio.Queue[Any] = asyncio.Queue()

        @client.channel.on("go")
        async def go(payload: Any) -> None:
            results.put_nowait(await client.call("add", payload))

        server.broadcast("go", 1)
        assert await results.get() == 2


# -- pulling


async def test_receive_hands_out_what_no_handler_takes_in_order() -> None:
    async with listening() as server, connected(server) as client:
        handled: list[Any] = []
        client.channel.on("handled", handled.append)
        for number in range(3):
            server.broadcast("handled", number)
            server.broadcast("pulled", number)
        for number in range(3):
            assert await client.receive(timeout=seconds(5)) == Message("pulled", number)
        assert handled == [0, 1, 2]
        with pytest.raises(ReceiveTimeout, match=r"no message came within 0\.05 s"):
            await client.receive(timeout=0.05)


async def test_wait_for_takes_one_type_and_leaves_the_others() -> None:
    async with listening() as server, connected(server) as client:
        server.broadcast("a", 1)
        server.broadcast("b", 2)
        server.broadcast("b", 3)
        assert await client.wait_for("b", lambda payload: payload > 2) == 3
        assert await client.receive() == Message("a", 1)
        assert await client.receive() == Message("b", 2)
        with pytest.raises(ReceiveTimeout, match="of the type 'c'"):
            await client.wait_for("c", timeout=0.05)


async def test_wait_for_sees_what_a_handler_takes_too() -> None:
    async with listening() as server, connected(server) as client:
        handled: list[Any] = []
        client.channel.on("a", handled.append)
        waiting = asyncio.ensure_future(client.wait_for("a"))
        await asyncio.sleep(0)
        server.broadcast("a", 1)
        assert await waiting == 1
        assert handled == [1]


async def test_a_predicate_that_raises_raises_in_its_own_wait() -> None:
    async with listening() as server, connected(server) as client:
        waiting = asyncio.ensure_future(client.wait_for("a", lambda payload: 1 / payload > 0))
        other = asyncio.ensure_future(client.wait_for("a"))
        await asyncio.sleep(0)
        server.broadcast("a", 0)
        with pytest.raises(ZeroDivisionError):
            await waiting
        assert await other == 0
        assert client.status is Status.READY


async def test_the_inbox_is_bounded_and_drops_the_oldest() -> None:
    async with listening() as server, connected(server, limits=Limits(max_inbox=3)) as client:
        for number in range(5):
            server.broadcast("a", number)
        await client_sync(server, client)
        assert [(await client.receive()).payload for _ in range(3)] == [2, 3, 4]
        assert client.inbox.dropped == 2
        assert len(client.inbox) == 0


async def test_a_cancelled_receive_loses_no_message() -> None:
    async with listening() as server, connected(server) as client:
        waiting = asyncio.ensure_future(client.receive())
        await asyncio.sleep(0)
        client.inbox.offer(Message("a", 1), keep=True)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await client.receive() == Message("a", 1)


async def test_iterating_ends_with_the_connection() -> None:
    async with listening() as server, connected(server) as client:
        for number in range(3):
            server.broadcast("a", number)
        server.drop_client("alice")
        assert [message.payload async for message in client] == [0, 1, 2]
        with pytest.raises(ConnectionNotReady, match=r"closed: 1000 wse\.by-server"):
            await client.receive()


async def test_closing_wakes_everybody_who_waits() -> None:
    async with listening() as server, connected(server) as client:
        hanging = [
            asyncio.ensure_future(client.receive()),
            asyncio.ensure_future(client.wait_for("a")),
            asyncio.ensure_future(client.wait()),
        ]
        await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*hanging, return_exceptions=True)
        assert isinstance(results[0], ConnectionNotReady)
        assert isinstance(results[1], ConnectionNotReady)
        assert results[2] is True


async def test_wait_tells_when_its_time_is_over() -> None:
    async with listening() as server, connected(server) as client:
        assert await client.wait(timeout=0.05) is False
        await client.wait_ready(timeout=0.05)


# -- closing


async def test_close_says_goodbye_by_client() -> None:
    async with listening() as server:
        left = asyncio.get_running_loop().create_future()
        server.when.left(lambda client, code, reason: left.set_result((code, reason)))
        async with connected(server) as client:
            await client.close()
            assert client.status is Status.OFFLINE
        assert await left == (1000, "wse.by-client")


async def test_a_closed_client_may_connect_again_with_its_handlers() -> None:
    async with listening() as server, connected(server) as client:
        got: asyncio.Queue[Any] = asyncio.Queue()
        client.channel.on("a", got.put_nowait)
        await client.close()
        await client.close()
        await client.connect("alice")
        server.broadcast("a", 1)
        assert await got.get() == 1


async def test_close_ends_a_connect_that_is_under_way() -> None:
    async with listening(lambda auth: None) as server:
        client = client_of(server)
        connecting = asyncio.ensure_future(client.connect("alice"))
        while client.link is None:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionFailed, match="closed while it was connecting"):
            await connecting
        assert client.status is Status.OFFLINE


async def test_closing_in_the_very_turn_in_which_an_attempt_fails_loses_no_exception() -> None:
    for turns in range(12):
        client = client_of("ws://127.0.0.1:9")
        connecting = asyncio.ensure_future(client.connect(lambda: 1 / 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises((ConnectionFailed, asyncio.CancelledError)):
            connecting.cancel()
            await connecting
    gc.collect()  # an exception that nobody took would be told now


async def test_cancelling_a_connect_leaves_the_client_offline() -> None:
    async with listening(lambda auth: None) as server:
        client = client_of(server)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.connect("alice"), 0.2)
        assert client.status is Status.OFFLINE
        await client.close()


async def test_drop_closes_without_waiting() -> None:
    async with listening() as server, connected(server) as client:
        events = record_client(client)
        client.drop("my reasons")
        assert client.status is Status.OFFLINE
        assert events.of("closed") == [(1000, "my reasons")]


async def test_the_repr_tells_status_and_url() -> None:
    client = AsyncWseClient("ws://localhost:4200")
    assert repr(client) == "<AsyncWseClient IDLE ws://localhost:4200>"
    assert repr(AsyncWseClient(lambda: "")) == "<AsyncWseClient IDLE the server>"
    assert client.latency is None


# -- the send buffer


async def test_sending_past_the_buffer_is_refused_until_it_drains() -> None:
    let_go = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        let_go.wait(seconds(20))
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url, limits=Limits(max_send_buffer=200_000))
        await client.connect("alice")
        sent = 0
        with pytest.raises(WseError, match=r"await client\.drain\(\) first") as error:
            for _ in range(2000):
                client.send("block", "x" * 50_000)
                sent += 1
        assert error.value.code == ErrorCode.SEND_BUFFER_FULL
        assert client.status is Status.READY
        await client.drained(0.05, 50_000)  # ends although nothing has left
        let_go.set()
        await client.drain()
        client.send("block", "x")
        await client.close()


# -- reconnecting


async def test_a_client_comes_back_and_its_status_follows() -> None:
    async with listening() as server:
        client = client_of(server, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        (conn,) = server.clients["alice"].conns.values()
        conn.close(1012, "moving")
        await events.wait("ready", 2)
        await client.wait_ready(timeout=seconds(5))
        assert [status for (status,) in events.of("updated")] == [
            "IDLE",
            "CONNECTING",
            "READY",
            "RE_CONNECTING",
            "READY",
        ]
        assert events.of("closed") == [(1012, "moving")]
        await client.close()


@pytest.mark.parametrize("code", [1011, 1012, 1013, 1014, 4000, None])
async def test_passing_losses_are_come_back_from(code: int | None) -> None:
    times: list[int] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        times.append(1)
        if len(times) > 1:
            peer.wait_closed()
        elif code is None:
            peer.kill()
        else:
            peer.close(code, "")

    with RawServer(script) as server:
        client = client_of(server.url, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        await events.wait("ready", 2)
        await client.close()


async def test_a_loss_without_a_code_is_come_back_from() -> None:
    times: list[int] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        times.append(1)
        if len(times) == 1:
            peer.send_frame(8)
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        await events.wait("ready", 2)
        assert events.of("closed") == [(1005, "")]
        await client.close()


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1008, 4001])
async def test_final_closings_are_not_come_back_from(code: int) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.close(code, "over")

    with RawServer(script) as server:
        client = client_of(server.url, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        assert await client.wait(timeout=seconds(5)) is True
        assert client.status is Status.OFFLINE
        assert events.of("closed") == [(code, "over")]
    assert len(server.peers) == 1


async def test_a_server_that_is_not_up_yet_is_tried_until_the_time_is_over() -> None:
    (sock,) = bind_sockets(0, "127.0.0.1")
    port = sock.getsockname()[1]
    sock.close()
    client = client_of(f"ws://127.0.0.1:{port}", reconnect=QUICK)
    with pytest.raises((ConnectionFailed, ConnectTimeout)):  # the last attempt may be cut short
        await client.connect("alice", timeout=0.3)
    connecting = asyncio.ensure_future(client.connect("alice"))
    await asyncio.sleep(0.1)
    server = AsyncWseServer(identify=accept_all)
    server.listen(port, "127.0.0.1")
    assert await connecting == {"message": "Welcome!"}
    await client.close()
    await server.stop()


async def test_being_refused_while_coming_back_is_final_and_raised_to_who_waits() -> None:
    async with listening() as server:
        identities = iter(["alice", "nobody"])
        client = client_of(server, reconnect=QUICK)
        events = record_client(client)
        await client.connect(lambda: next(identities))
        waiting = [
            asyncio.ensure_future(client.receive()),
            asyncio.ensure_future(client.wait()),
        ]
        await asyncio.sleep(0)
        (conn,) = server.clients["alice"].conns.values()
        conn.close(1012, "")
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, NotAuthorized)
        assert client.status is Status.OFFLINE
        (error,) = events.of("error")[0]
        assert isinstance(error, NotAuthorized)
        with pytest.raises(NotAuthorized):
            await client.wait_ready()
        with pytest.raises(NotAuthorized):
            await client.wait()


async def test_failed_attempts_to_come_back_are_told() -> None:
    async with listening() as server:
        client = client_of(server, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        await server.stop()
        (error,) = await events.wait("error")
        assert isinstance(error, ConnectionFailed)
        assert client.status is Status.RE_CONNECTING
        with pytest.raises(ConnectionNotReady, match=r"RE_CONNECTING; wait_ready\(\) waits"):
            client.send("a")
        with pytest.raises(WaitTimeout, match="not ready within"):
            await client.wait_ready(timeout=0.02)
        with pytest.raises(AlreadyConnected):
            await client.connect("alice")
        await client.close()
        assert client.status is Status.OFFLINE


async def test_close_during_backoff_stops_reconnecting() -> None:
    async with listening() as server:
        client = client_of(server, reconnect=Backoff(initial=1000, maximum=1000))
        events = record_client(client)
        await client.connect("alice")
        (conn,) = server.clients["alice"].conns.values()
        conn.close(1012, "")
        await events.until(lambda: client.status is Status.RE_CONNECTING)
        await client.close()
        assert client.status is Status.OFFLINE
        assert not client._sockets


async def test_calls_are_never_sent_again_after_a_loss() -> None:
    async with listening() as server:
        calls: list[Any] = []

        @server.register("once")
        async def once(conn: Any, payload: Any) -> None:
            calls.append(payload)
            conn.close(1012, "")

        client = client_of(server, reconnect=QUICK)
        events = record_client(client)
        await client.connect("alice")
        with pytest.raises(RpcDisconnected):
            await client.call("once", 1)
        await events.wait("ready", 2)
        await client_sync(server, client)
        assert calls == [1]
        await client.close()


# -- jumping


async def test_jump_moves_to_another_server_with_a_new_identity() -> None:
    async with listening() as one, listening() as two, connected(one) as client:
        events = record_client(client)
        left = asyncio.get_running_loop().create_future()
        one.when.left(lambda client, code, reason: left.set_result((code, reason)))
        waiting = asyncio.ensure_future(client.receive())
        await asyncio.sleep(0)
        assert await client.jump(url_of(two), "bob", {"device": "new"}) == {"message": "Welcome!"}
        assert await left == (4000, "jump")
        assert list(two.clients) == ["bob"]
        (conn,) = two.clients["bob"].conns.values()
        assert conn.meta == {"device": "new"}
        two.broadcast("a", 1)
        assert await waiting == Message("a", 1)
        assert events.of("closed") == [(4000, "jump")]
        await client.jump(url_of(one))
        assert list(one.clients) == ["bob"]


async def test_jump_checks_its_url_before_it_leaves() -> None:
    async with listening() as server, connected(server) as client:
        with pytest.raises(ValueError, match="not a WebSocket URL"):
            await client.jump("http://elsewhere")
        assert client.status is Status.READY


async def test_jump_works_from_anywhere() -> None:
    async with listening() as server:
        client = client_of("ws://127.0.0.1:9")
        await client.jump(url_of(server), "alice")
        assert client.status is Status.READY
        await client.close()


async def test_jump_ends_a_connect_that_is_under_way() -> None:
    async with listening(lambda auth: None) as silent, listening() as server:
        client = client_of(silent)
        connecting = asyncio.ensure_future(client.connect("alice"))
        while client.link is None:
            await asyncio.sleep(0)
        await client.jump(url_of(server))
        with pytest.raises(ConnectionFailed):
            await connecting
        assert list(server.clients) == ["alice"]
        await client.close()


# -- challenges


async def test_a_challenge_is_solved_by_plain_and_coroutine_functions() -> None:
    def identify(auth: Any) -> Any:
        return auth.identity if auth.challenge.response == auth.challenge.quest + 1 else None

    async with listening(identify) as server:
        server.use_challenge(lambda auth: 41)
        client = client_of(server)
        client.challenge(lambda quest: quest + 1)
        await client.connect("alice")
        await client.close()

        @client.challenge
        async def solve(quest: Any) -> Any:
            await asyncio.sleep(0)
            return quest + 1

        await client.connect("alice")
        await client.close()


async def test_a_client_without_a_solver_is_not_authorized() -> None:
    async with listening() as server:
        server.use_challenge(lambda auth: 41)
        client = client_of(server, reconnect=QUICK)
        with pytest.raises(NotAuthorized, match=r"set one with client\.challenge") as error:
            await client.connect("alice")
        assert error.value.code == ErrorCode.INVALID_CRA_HANDLER
        await client.close()


@pytest.mark.parametrize("solution", [ValueError("no idea"), object()], ids=repr)
async def test_a_solver_that_fails_is_not_authorized(solution: Any) -> None:
    def solve(quest: Any) -> Any:
        if isinstance(solution, Exception):
            raise solution
        return solution

    async with listening() as server:
        server.use_challenge(lambda auth: 41)
        client = client_of(server)
        client.challenge(solve)
        with pytest.raises(NotAuthorized, match="the challenge solver raised"):
            await client.connect("alice")
        await client.close()


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


async def test_the_ready_made_challenge_takes_one_line_on_each_side() -> None:
    async with listening(lambda auth: auth.identity) as server:
        server.use_challenge(HmacChallenge({"alice": "sesame"}.get))
        client = client_of(server)
        client.challenge(HmacSolver("sesame"))
        await client.connect("alice")
        await client.close()
        client.challenge(HmacSolver("wrong"))
        with pytest.raises(NotAuthorized):
            await client.connect("alice")


def test_a_solver_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="challenge"):
        AsyncWseClient("ws://localhost").challenge(lambda: None)


# -- the older generation


async def test_the_older_generation_is_called_in_its_own_way() -> None:
    seen: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        for _ in range(3):
            message = peer.recv_message()
            seen.append(message)
            name, payload, stamp = message
            if name == "add":
                peer.send(stamp, payload["a"] + payload["b"], {"success": True})
                peer.send(stamp, 0, {"success": True})  # again: too late, dropped
            elif name == "fail":
                peer.send(stamp, None, {"code": "shop.sold-out", "details": {"left": 0}})
            else:
                peer.send(stamp, None, {"code": "wse.server.rp.not-registered"})
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url, generation="older")
        await client.connect("alice")
        assert await client.call("add", {"a": 5, "b": 3}) == 8
        with pytest.raises(RpcFailed) as failed:
            await client.call("fail")
        assert (failed.value.code, failed.value.details) == ("shop.sold-out", {"left": 0})
        with pytest.raises(RpcNotRegistered):
            await client.call("nothing")
        await client.close()
    assert [message[2].startswith(f"~wse:call:{message[0]}:") for message in seen] == [True] * 3


async def test_a_stamp_that_is_no_string_is_a_violation_of_the_protocol() -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("hello", 1, {"odd": True})
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url)
        events = record_client(client)
        await client.connect("alice")
        (error,) = await events.wait("error")
        assert error.code == ErrorCode.PROTOCOL_VIOLATION
        await events.wait("closed")
        assert events.of("closed") == [(1000, "wse.protocol-error")]
        await client.close()


# -- liveness


async def test_a_server_that_goes_silent_is_left_with_1006() -> None:
    let_go = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        let_go.wait(seconds(20))

    with RawServer(script) as server:
        limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.1))
        client = client_of(server.url, limits=limits)
        events = record_client(client)
        await client.connect("alice")
        code, reason = await events.wait("closed")
        assert (code, reason) == (1006, Reason.HEARTBEAT)
        assert client.status is Status.OFFLINE
        await client.close()
        let_go.set()


async def test_a_server_that_answers_pings_is_kept() -> None:
    pinged = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        while len(peer.pings) < 4:
            opcode, payload = peer.recv_frame()
            assert opcode == 9
            peer.pings.append(payload)
            peer.send_frame(10, payload)
        pinged.set()
        peer.wait_closed()

    with RawServer(script) as server:
        limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
        client = client_of(server.url, limits=limits)
        await client.connect("alice")
        assert await in_thread(pinged.wait, seconds(10))
        assert client.status is Status.READY
        assert client.latency is not None
        assert client.latency >= 0
        await client.close()


async def test_a_pong_nobody_asked_for_is_no_latency() -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_frame(10, b"unasked")
        peer.send("mark")
        peer.wait_closed()

    with RawServer(script) as server:
        client = client_of(server.url)
        await client.connect("alice")
        await client.wait_for("mark", timeout=seconds(5))
        assert client.latency is None
        await client.close()


async def test_pings_of_the_server_count_as_life() -> None:
    enough = threading.Event()

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.answer_pings = False
        peer.sock.settimeout(0.02)
        for _ in range(30):
            peer.send_frame(9, b"alive")
            try:
                while True:
                    peer.recv_frame()
            except TimeoutError:
                pass
        enough.set()
        peer.sock.settimeout(seconds(10))
        peer.wait_closed()

    with RawServer(script) as server:
        limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.2))
        client = client_of(server.url, limits=limits)
        events = record_client(client)
        await client.connect("alice")
        await in_thread(enough.wait, seconds(10))
        assert events.of("closed") == []
        await client.close()


async def test_a_message_that_is_too_large_ends_the_connection_with_1009() -> None:
    got: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("big", "x" * 5000)
        got.append(peer.wait_closed())

    with RawServer(script) as server:
        client = client_of(server.url, limits=Limits(max_message_size=2000))
        events = record_client(client)
        await client.connect("alice")
        assert (await events.wait("closed"))[0] == 1009
        await client.close()
    assert got[0][0] == 1009
