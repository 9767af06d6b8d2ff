"""AsyncWseServer over real sockets: getting in, users and devices, sending, bounds, stopping."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseServer,
    ErrorCode,
    HmacChallenge,
    Limits,
    NotAuthorized,
    NotSerializable,
    Reason,
    RpcDisconnected,
    RpcNotRegistered,
    RpcTimeout,
    WseError,
)

from ..support import RawPeer, seconds, serve, wait_until
from ..support.servers import accept_all
from .conftest import connected, listening, record_client, record_server, url_of

# -- arguments


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"conn_per_user": 0}, ValueError),
        ({"conn_per_user": -1}, ValueError),
        ({"conn_per_user": 1.5}, TypeError),
        ({"conn_per_user": True}, TypeError),
        ({"linger": -1}, ValueError),
        ({"linger": float("nan")}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"protocol": "json"}, TypeError),
        ({"identify": 5}, TypeError),
        ({"identify": lambda: None}, TypeError),
        ({"allowed_origins": "https://example.com"}, TypeError),
    ],
    ids=repr,
)
def test_arguments_that_make_no_sense_are_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        AsyncWseServer(**options)


def test_listening_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="loop"):
        AsyncWseServer(identify=accept_all).listen(0)


# Tornado's bind_sockets leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_taken_port_is_an_os_error() -> None:
    async with listening() as server:
        assert server.port is not None
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            AsyncWseServer(identify=accept_all).listen(server.port, "127.0.0.1")


async def test_the_repr_tells_state_users_and_connections() -> None:
    server = AsyncWseServer(identify=accept_all)
    assert repr(server) == "<AsyncWseServer mounted users=0 connections=0>"
    server.listen(0, "127.0.0.1")
    async with connected(server):
        assert repr(server) == f"<AsyncWseServer port={server.port} users=1 connections=1>"
        (conn,) = server.clients["alice"].conns.values()
        assert repr(conn) == f"<Connection {conn.conn_id} of 'alice' from 127.0.0.1 open>"
        assert repr(server.clients["alice"]) == "<ClientIdentity 'alice' devices=1>"
        conn.drop("enough")
        assert repr(conn).endswith("closed 1000 enough>")
    await server.stop()
    assert repr(server).startswith("<AsyncWseServer stopped ")


# -- identify


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
async def test_identify_accepts_in_every_way(identify: Callable[..., Any], welcome: Any) -> None:
    async with listening(identify) as server:
        client_welcome: list[Any] = []
        async with connected(server, "key", {"device": "laptop"}) as client:
            client.when.ready(client_welcome.append)
            assert client_welcome == [welcome]
            (conn,) = server.clients["user"].conns.values()
            assert (conn.cid, conn.identity, conn.meta) == ("user", "key", {"device": "laptop"})
            assert conn.client is server.clients["user"]
            assert conn.remote_addr == "127.0.0.1"
            assert conn.latency is None


async def refuses_slowly(auth: Any) -> None:
    await asyncio.sleep(0.01)
    auth.refuse()


def raises(auth: Any) -> None:
    raise KeyError("no such user")


async def raises_slowly(auth: Any) -> None:
    await asyncio.sleep(0.01)
    raise KeyError("no such user")


@pytest.mark.parametrize(
    ("identify", "told"),
    [
        (lambda auth: auth.refuse(), False),
        (refuses_slowly, False),
        (lambda auth: threading.Timer(0.01, auth.refuse).start(), False),
        (lambda auth: auth.accept(""), False),
        (lambda auth: auth.accept(None), False),
        (lambda auth: 0, False),
        (lambda auth: False, False),
        (raises, True),
        (raises_slowly, True),
        (lambda auth: ["unhashable"], True),
        (lambda auth: auth.accept("user", object()), True),
        (None, True),
    ],
    ids=[
        *["refuses", "refuses-slowly", "from-a-thread", "accepts-empty", "accepts-none"],
        *["returns-0", "returns-false", "raises", "raises-slowly", "unhashable"],
        *["unpackable-welcome", "missing"],
    ],
)
async def test_identify_keeps_out_in_every_way(identify: Any, told: bool) -> None:
    async with listening(identify) as server:
        events = record_server(server)
        with pytest.raises(NotAuthorized):
            async with connected(server):
                pass
        assert events.names() == (["error"] if told else [])
        assert not server.clients
        await wait_for(lambda: not server._open, events)


async def wait_for(condition: Callable[[], Any], events: Any) -> None:
    """Wait for something on this loop that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + seconds(5)
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, events
        await asyncio.sleep(0.005)


async def test_a_missing_identify_handler_says_what_to_do() -> None:
    async with listening(None) as server:
        events = record_server(server)
        with pytest.raises(NotAuthorized):
            async with connected(server):
                pass
        (error,) = events.of("error")[0]
        assert "pass identify=" in str(error)


async def test_an_identify_that_never_answers_ends_with_the_auth_timeout() -> None:
    async with listening(lambda auth: None, limits=Limits(auth_timeout=0.1)) as server:
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        assert await asyncio.to_thread(peer.wait_closed) == (1013, Reason.AUTH_TIMEOUT)
        assert not server.clients


async def test_a_stranger_that_says_nothing_ends_with_the_auth_timeout() -> None:
    async with listening(limits=Limits(auth_timeout=0.1)) as server:
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        assert await asyncio.to_thread(peer.wait_closed) == (1013, Reason.AUTH_TIMEOUT)


async def test_who_never_finishes_the_http_request_ends_with_the_auth_timeout() -> None:
    async with listening(limits=Limits(auth_timeout=0.1)) as server:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), seconds(10)) == b""
            writer.close()
            await writer.wait_closed()


async def test_a_verdict_after_the_client_has_gone_makes_no_ghost() -> None:
    asked: asyncio.Queue[Any] = asyncio.Queue()
    async with listening(asked.put_nowait) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        auth = await asked.get()
        peer.kill()
        await wait_for(lambda: not server._open, events)
        auth.accept("alice")
        assert not server.clients
        assert events == []
        with pytest.raises(RuntimeError, match="accepted already"):
            auth.refuse()


async def test_a_handler_that_raises_after_the_client_has_gone_is_told() -> None:
    gate = asyncio.Event()
    asked = asyncio.Event()

    async def identify(auth: Any) -> None:
        asked.set()
        await gate.wait()
        raise KeyError("late")

    async with listening(identify) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        await asked.wait()
        peer.kill()
        await wait_for(lambda: not server._open, events)
        gate.set()
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


async def test_a_coroutine_may_challenge() -> None:
    async with listening() as server:

        @server.use_challenge
        async def quest(auth: Any) -> Any:
            await asyncio.sleep(0)
            return {"for": auth.identity}

        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        answer = await asyncio.to_thread(peer.recv_message)
        assert answer == ["~wse:challenge", {"for": "alice"}, None]
        peer.send("~wse:challenge", "x", None)
        assert (await asyncio.to_thread(peer.recv_message))[0] == "~wse:welcome"
        await asyncio.to_thread(peer.close)


async def test_a_plain_challenge_replaces_one_that_verifies() -> None:
    server = AsyncWseServer(identify=accept_all)
    server.use_challenge(HmacChallenge(lambda identity: "s"))
    assert server.verify_handler is not None
    server.use_challenge(lambda auth: 1)
    assert server.verify_handler is None
    with pytest.raises(TypeError, match="use_challenge"):
        server.use_challenge(lambda: 1)


# -- users and devices


async def test_signals_come_in_order_with_the_true_code_and_reason() -> None:
    async with listening(conn_per_user=2) as server:
        events = record_server(server)
        async with connected(server, "alice", {"device": "phone"}) as phone:
            async with connected(server, "alice", {"device": "laptop"}):
                assert len(server.clients["alice"].conns) == 2
            await events.wait("disconnected")
            await phone.close(1000, "bye bye")
            await events.wait("left")
        assert events == [
            ("joined", "alice", {"device": "phone"}),
            ("connected", "alice"),
            ("connected", "alice"),
            ("disconnected", "alice", 1000, "wse.by-client"),
            ("disconnected", "alice", 1000, "bye bye"),
            ("left", "alice", 1000, "bye bye"),
        ]
        assert not server.clients


async def test_the_welcome_comes_before_joined_and_what_joined_sends_after_it() -> None:
    async with listening() as server:
        server.when.joined(lambda client, meta: client.send("from-joined"))
        server.when.connected(lambda conn: conn.send("from-connected"))
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        types = [(await asyncio.to_thread(peer.recv_message))[0] for _ in range(3)]
        assert types == ["~wse:welcome", "from-joined", "from-connected"]
        await asyncio.to_thread(peer.close)


async def test_a_client_that_vanishes_leaves_with_1006() -> None:
    async with listening() as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        await events.wait("connected")
        peer.kill()
        assert await events.wait("left") == ("alice", 1006, "")


async def test_the_oldest_device_is_pushed_out() -> None:
    async with listening(conn_per_user=2) as server:
        events = record_server(server)
        async with connected(server) as one, connected(server) as two:
            first = record_client(one)
            async with connected(server) as three:
                assert await first.wait("closed") == (1000, Reason.CLIENTS_CONCURRENCY)
                assert server.broadcast("a") == 2
                await two.receive(timeout=seconds(5))
                await three.receive(timeout=seconds(5))
        assert events.names().count("joined") == 1
        await events.wait("left")
        assert events.names().count("left") == 1


async def test_a_new_device_of_a_user_that_is_pushed_out_is_no_new_user() -> None:
    async with listening() as server:
        events = record_server(server)
        async with connected(server), connected(server):
            await events.wait("disconnected")
            await events.wait("connected", 2)
            assert events.names().count("joined") == 1
            assert "left" not in events.names()
            assert len(server.clients["alice"].conns) == 1


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


async def test_the_views_are_read_only() -> None:
    async with listening() as server, connected(server):
        with pytest.raises(TypeError):
            server.clients["mallory"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            del server.clients["alice"].conns["x"]  # type: ignore[attr-defined]


# -- sending


async def test_sending_reaches_one_device_one_user_all_or_all_but_one() -> None:
    async with listening(conn_per_user=2) as server:
        async with (
            connected(server, "alice") as phone,
            connected(server, "alice") as laptop,
            connected(server, "bob") as bob,
        ):
            everyone = {"phone": phone, "laptop": laptop, "bob": bob}

            async def reached() -> list[str]:
                names = []
                for name, client in everyone.items():
                    await client.call("sync")
                    while len(client.inbox):
                        await client.receive()
                        names.append(name)
                return names

            server.register("sync", lambda conn, payload: None)
            first = next(iter(server.clients["alice"].conns.values()))
            assert first.send("m", 1) == 1
            assert await reached() == ["phone"]
            assert server.send("alice", "m") == 2
            assert await reached() == ["phone", "laptop"]
            assert server.clients["alice"].send("m") == 2
            assert await reached() == ["phone", "laptop"]
            assert server.send("nobody", "m") == 0
            assert server.broadcast("m") == 3
            assert await reached() == ["phone", "laptop", "bob"]
            assert server.broadcast("m", exclude="alice") == 1
            assert await reached() == ["bob"]
            assert server.broadcast("m", exclude="nobody") == 3
            assert len(await reached()) == 3


@pytest.mark.parametrize("type", ["", "~wse:hi", "~wse:x", None, [], True], ids=repr)
async def test_reserved_and_empty_types_are_refused(type: Any) -> None:
    async with listening() as server, connected(server):
        (conn,) = server.clients["alice"].conns.values()
        for send in (
            lambda: server.broadcast(type),
            lambda: server.send("alice", type),
            lambda: conn.send(type),
            lambda: server.clients["alice"].send(type),
            lambda: server.channel.on(type, print),
            lambda: server.register(type, print),
        ):
            with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
                send()
        with pytest.raises(ValueError, match=r"belongs to the library|non-empty string"):
            await conn.call(type)


async def test_a_payload_that_cannot_be_packed_reaches_nobody() -> None:
    async with listening() as server, connected(server) as client:
        (conn,) = server.clients["alice"].conns.values()
        for send in (
            lambda: server.broadcast("m", object()),
            lambda: server.send("alice", "m", object()),
            lambda: server.send("nobody", "m", object()),
            lambda: conn.send("m", object()),
        ):
            with pytest.raises(NotSerializable):
                send()
        with pytest.raises(NotSerializable):
            await conn.call("m", object())
        conn.send("mark")
        assert (await client.receive(timeout=seconds(5))).type == "mark"


async def test_dropping_closes_with_the_reason_and_counts() -> None:
    async with listening(conn_per_user=3) as server:
        async with connected(server) as one, connected(server) as two, connected(server) as three:
            closings = [record_client(client) for client in (one, two, three)]
            first = next(iter(server.clients["alice"].conns.values()))
            first.drop()
            assert first.conn_id not in server.clients["alice"].conns
            assert first.send("m") == 0
            first.drop("again")
            assert server.drop_client("alice", "the end") == 2
            assert server.drop_client("alice") == 0
            assert server.drop_client("nobody") == 0
            assert [await events.wait("closed") for events in closings] == [
                (1000, "wse.by-server"),
                (1000, "the end"),
                (1000, "the end"),
            ]
            assert not server.clients


async def test_a_long_reason_is_cut_at_a_character() -> None:
    async with listening() as server, connected(server) as client:
        events = record_client(client)
        server.drop_client("alice", "ї" * 100)
        assert await events.wait("closed") == (1000, "ї" * 61)


async def test_a_call_to_a_device_raises_what_it_should() -> None:
    async with listening() as server, connected(server) as client:
        (conn,) = server.clients["alice"].conns.values()
        client.register("hang", lambda payload: asyncio.Event().wait())
        with pytest.raises(RpcNotRegistered):
            await conn.call("nothing")
        with pytest.raises(RpcTimeout):
            await conn.call("hang", timeout=0.05)
        hanging = asyncio.ensure_future(conn.call("hang"))
        await asyncio.sleep(0)
        conn.drop("go away")
        with pytest.raises(RpcDisconnected, match="go away"):
            await hanging
        with pytest.raises(RpcDisconnected) as error:
            await conn.call("hang")
        assert error.value.sent is False


# -- handlers


async def test_handlers_that_raise_are_told_and_end_nothing() -> None:
    async with listening() as server, connected(server) as client:
        events = record_server(server)

        @server.channel.on("bad")
        def bad(conn: Any, payload: Any) -> None:
            raise KeyError("plain")

        @server.channel.on("worse")
        async def worse(conn: Any, payload: Any) -> None:
            await asyncio.sleep(0)
            raise KeyError("coroutine")

        server.when.ignored(lambda conn, message: 1 / 0)
        server.register("alive", lambda conn, payload: True)
        for type in ("bad", "worse", "unheard"):
            client.send(type)
        await events.wait("error", 3)
        messages = [str(error) for (error,) in events.of("error")]
        assert ["plain" in messages[0], "coroutine" in messages[1]] == [True, True]
        assert "ZeroDivisionError" in messages[2]
        assert await client.call("alive") is True


async def test_without_a_listener_errors_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server, connected(server) as client:
        server.channel.on("bad", lambda conn, payload: 1 / 0)
        server.register("fail", lambda conn, payload: 1 / 0)
        client.send("bad", "a secret payload")
        with pytest.raises(WseError):
            await client.call("fail", "a secret payload")
        records = [r for r in caplog.records if r.name == "wse_tornado.server"]
        assert [record.levelname for record in records] == ["ERROR", "ERROR"]
        assert all(record.exc_info for record in records)
        assert "secret" not in "".join(record.getMessage() for record in records)
        caplog.clear()
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.send_text("nonsense")
        await asyncio.to_thread(peer.wait_closed)
        (record,) = [r for r in caplog.records if r.name == "wse_tornado.server"]
        assert record.levelname == "WARNING"


async def test_a_suspended_handler_holds_up_its_own_connection_only() -> None:
    async with listening() as server:
        log: list[Any] = []
        gate = asyncio.Event()
        quick = asyncio.Event()

        @server.channel.on("slow")
        async def slow(conn: Any, payload: Any) -> None:
            log.append((conn.cid, "slow began"))
            await gate.wait()
            log.append((conn.cid, "slow ended"))

        @server.channel.on("quick")
        def on_quick(conn: Any, payload: Any) -> None:
            log.append((conn.cid, "quick"))
            quick.set()

        server.register("sync", lambda conn, payload: None)
        async with connected(server, "alice") as alice, connected(server, "bob") as bob:
            alice.send("slow")
            alice.send("quick")
            await alice.call("sync")  # calls do not wait for handlers
            bob.send("quick")
            await bob.call("sync")
            assert log == [("alice", "slow began"), ("bob", "quick")]
            quick.clear()
            gate.set()
            await quick.wait()
            assert log[2:] == [("alice", "slow ended"), ("alice", "quick")]


async def test_a_handler_may_call_its_own_client_back() -> None:
    async with listening() as server, connected(server) as client:
        client.register("double", lambda payload: payload * 2)

        @server.channel.on("go")
        async def go(conn: Any, payload: Any) -> None:
            conn.send("done", await conn.call("double", payload))

        @server.register("via")
        async def via(conn: Any, payload: Any) -> Any:
            return await conn.call("double", payload)

        client.send("go", 4)
        assert await client.wait_for("done", timeout=seconds(5)) == 8
        assert await client.call("via", 5) == 10


async def test_stacks_are_told_only_where_that_is_turned_on() -> None:
    for expose in (False, True):
        async with listening(expose_errors=expose) as server, connected(server) as client:
            server.when.error(lambda error, conn: None)
            server.register("fail", lambda conn, payload: 1 / 0)
            with pytest.raises(WseError) as error:
                await client.call("fail", "argument")
            assert ("stack" in error.value.details["origin"]) is expose
            assert (error.value.details.get("payload") == "argument") is expose


async def test_an_error_whose_details_cannot_be_packed_still_reaches_the_caller() -> None:
    async with listening() as server, connected(server) as client:
        events = record_server(server)

        @server.register("fail")
        def fail(conn: Any, payload: Any) -> None:
            raise WseError("shop.sold-out", {"what": object()})

        with pytest.raises(WseError) as error:
            await client.call("fail")
        assert (error.value.code, error.value.details) == ("shop.sold-out", {})
        assert events.of("error")[0][0].code == ErrorCode.NOT_SERIALIZABLE


async def test_a_procedure_that_fails_after_its_caller_has_gone_is_told() -> None:
    async with listening() as server:
        events = record_server(server)
        gate = asyncio.Event()
        began = asyncio.Event()

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> None:
            began.set()
            await gate.wait()
            raise KeyError("late")

        async with connected(server) as client:
            call = asyncio.ensure_future(client.call("slow"))
            await began.wait()
        with pytest.raises(RpcDisconnected):
            await call
        await events.wait("disconnected")
        gate.set()
        (error,) = await events.wait("error")
        assert error.code == ErrorCode.RP_EXECUTION_FAILED


async def test_a_cancelled_procedure_answers_with_an_error() -> None:
    async with listening() as server, connected(server) as client:
        began = asyncio.Event()

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> None:
            began.set()
            await asyncio.Event().wait()

        call = asyncio.ensure_future(client.call("slow"))
        await began.wait()
        server.endpoint.dispatcher.cancel_calls()
        with pytest.raises(WseError) as error:
            await call
        assert error.value.code == ErrorCode.RP_EXECUTION_FAILED


# -- bounds


async def test_a_device_that_does_not_keep_up_is_closed_with_1013_and_no_other() -> None:
    limits = Limits(max_send_buffer=100_000)
    async with listening(limits=limits) as server, connected(server, "bob") as bob:
        events = record_server(server)
        got = asyncio.Event()
        total = 0

        @bob.channel.on("block")
        def block(payload: Any) -> None:
            nonlocal total
            total += 1
            got.set()

        slow = await asyncio.to_thread(RawPeer.connect, server.port)
        slow.hi("alice")
        await events.wait("connected")
        sent = 0
        while "alice" in server.clients:
            got.clear()
            server.broadcast("block", "x" * 50_000)
            sent += 1
            assert sent < 2000
            await got.wait()  # bob keeps up
        assert await events.wait("left") == ("alice", 1013, Reason.SLOW_CONSUMER)
        assert total == sent
        assert list(server.clients) == ["bob"]
        slow.kill()


async def test_a_message_larger_than_the_buffer_goes_out_when_nothing_waits() -> None:
    limits = Limits(max_send_buffer=1000)
    async with listening(limits=limits) as server, connected(server) as client:
        assert server.broadcast("big", "x" * 100_000) == 1
        assert len(await client.wait_for("big", timeout=seconds(5))) == 100_000


async def test_a_message_that_is_too_large_ends_the_connection_with_1009() -> None:
    async with listening(limits=Limits(max_message_size=1000)) as server:
        events = record_server(server)
        async with connected(server) as client:
            closing = record_client(client)
            client.send("ok", "x" * 900)
            await events.wait("ignored")
            client.send("big", "x" * 1001)
            assert (await closing.wait("closed"))[0] == 1009
            assert (await events.wait("left"))[1] == 1009


@pytest.mark.parametrize("bound", ["max_connections", "max_unauthenticated"])
async def test_past_the_bound_further_connections_are_closed_with_1013(bound: str) -> None:
    async with listening(limits=Limits(**{bound: 2})) as server:
        peers = [await asyncio.to_thread(RawPeer.connect, server.port) for _ in range(2)]
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        assert await asyncio.to_thread(peer.wait_closed) == (1013, Reason.SERVER_FULL)
        peers[0].hi("alice")
        assert (await asyncio.to_thread(peers[0].recv_message))[0] == "~wse:welcome"
        again = await asyncio.to_thread(RawPeer.connect, server.port)
        if bound == "max_connections":  # those who are in count too
            assert (await asyncio.to_thread(again.wait_closed))[0] == 1013
        else:
            again.hi("bob")
            assert (await asyncio.to_thread(again.recv_message))[0] == "~wse:welcome"
        for peer in [*peers, again]:
            await asyncio.to_thread(peer.close)


def test_past_max_queue_reading_pauses_until_handlers_have_caught_up() -> None:
    gate: list[asyncio.Event] = []
    handled: list[int] = []

    def setup(server: Any) -> None:
        @server.channel.on("slow")
        async def slow(conn: Any, payload: int) -> None:
            if payload == 0:
                gate.append(asyncio.Event())
                await gate[0].wait()
            handled.append(payload)

        server.register("sync", lambda conn, payload: len(handled))

    total = 3000
    with serve("async", setup=setup, limits=Limits(max_queue=10)) as served:
        with served.peer() as peer:
            peer.hi("alice")
            peer.recv()
            wait_until(lambda: "alice" in served.core.clients)
            (conn,) = served.core.clients["alice"].conns.values()

            def flood() -> None:
                for number in range(total):
                    peer.send("slow", number)
                peer.send("sync", None, "s")

            flooding = threading.Thread(target=flood)
            flooding.start()
            wait_until(lambda: conn._paused)
            assert handled == []
            # What had been read in one go may still be there, but no more than that comes.
            assert conn.lane.waiting < total
            served.do(lambda: gate[0].set())
            assert peer.recv_message()[0] == "~wse:response"
            flooding.join()
            wait_until(lambda: len(handled) == total)
            assert handled == list(range(total))


async def test_a_paused_connection_still_gets_the_answer_it_waits_for() -> None:
    async with listening(limits=Limits(max_queue=5)) as server, connected(server) as client:
        results: asyncio.Queue[Any] = asyncio.Queue()
        gate = asyncio.Event()

        @server.channel.on("ask")
        async def ask(conn: Any, payload: Any) -> None:
            await gate.wait()  # until reading has been paused
            results.put_nowait(await conn.call("double", payload))

        client.register("double", lambda payload: payload * 2)
        (conn,) = server.clients["alice"].conns.values()
        for number in range(50):
            client.send("ask", number)
        await wait_for(lambda: conn._paused, "paused")
        gate.set()
        assert [await results.get() for _ in range(50)] == [n * 2 for n in range(50)]


# -- liveness


async def test_a_client_that_goes_silent_leaves_with_1006_and_frees_its_place() -> None:
    limits = Limits(heartbeat=seconds(0.1), heartbeat_timeout=seconds(0.1))
    async with listening(limits=limits) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        assert await events.wait("left") == ("alice", 1006, Reason.HEARTBEAT)
        await wait_for(lambda: not server._open, events)
        peer.kill()


async def test_a_client_that_answers_pings_stays_and_has_a_latency() -> None:
    limits = Limits(heartbeat=0.05, heartbeat_timeout=seconds(5))
    async with listening(limits=limits) as server, connected(server) as client:
        events = record_server(server)
        (conn,) = server.clients["alice"].conns.values()
        await wait_for(lambda: conn.latency is not None, events)
        assert conn.latency is not None
        assert conn.latency >= 0
        assert client.status == "READY"


async def test_a_heartbeat_of_zero_never_pings() -> None:
    async with listening(limits=Limits(heartbeat=0)) as server, connected(server):
        (conn,) = server.clients["alice"].conns.values()
        assert conn._heartbeat is None


# -- stopping


async def test_stop_closes_with_1012_and_lets_clients_come_back() -> None:
    async with listening() as server:
        events = record_server(server)
        async with connected(server) as client:
            closing = record_client(client)
            port = server.port
            await server.stop()
            assert await closing.wait("closed") == (1012, Reason.SERVER_STOPPING)
            assert events.of("left") == [("alice", 1012, Reason.SERVER_STOPPING)]
            assert server.port is None
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


async def test_stop_lets_running_calls_finish_within_the_grace() -> None:
    async with listening() as server, connected(server) as client:
        began = asyncio.Event()

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> str:
            began.set()
            await asyncio.sleep(0.1)
            return "finished"

        call = asyncio.ensure_future(client.call("slow"))
        await began.wait()
        await server.stop(grace=seconds(10))
        assert await call == "finished"


async def test_stop_does_not_wait_longer_than_the_grace() -> None:
    async with listening() as server, connected(server) as client:
        began = asyncio.Event()

        @server.register("hang")
        async def hang(conn: Any, payload: Any) -> None:
            began.set()
            await asyncio.Event().wait()

        call = asyncio.ensure_future(client.call("hang"))
        await began.wait()
        await server.stop(grace=0.1)
        with pytest.raises(RpcDisconnected, match="1012"):
            await call


async def test_a_stopped_server_can_listen_again() -> None:
    server = AsyncWseServer(identify=accept_all)
    for _ in range(2):
        server.listen(0, "127.0.0.1")
        async with connected(server):
            assert list(server.clients) == ["alice"]
        await server.stop()
    await server.stop()


async def test_a_peer_that_ignores_the_close_frame_does_not_hold_up_stop() -> None:
    async with listening(limits=Limits(close_timeout=0.1)) as server:
        events = record_server(server)
        peer = await asyncio.to_thread(RawPeer.connect, server.port)
        peer.hi("alice")
        await events.wait("connected")
        await asyncio.wait_for(server.stop(), seconds(5))
        peer.kill()


async def test_listen_answers_on_the_path_it_was_given_only() -> None:
    server = AsyncWseServer(identify=accept_all)
    server.listen(0, "127.0.0.1", path="/ws")
    peer = await asyncio.to_thread(lambda: RawPeer.connect(server.port, path="/ws"))
    await asyncio.to_thread(peer.close)
    with pytest.raises(AssertionError, match="404"):
        await asyncio.to_thread(lambda: RawPeer.connect(server.port, path="/other"))
    await server.stop()


async def test_a_stranger_of_another_protocol_is_closed_at_once() -> None:
    async with listening() as server:
        peer = await asyncio.to_thread(lambda: RawPeer.connect(server.port, protocols="other"))
        assert await asyncio.to_thread(peer.wait_closed) == (1000, "wse.protocol-error")
        assert url_of(server).startswith("ws://")
