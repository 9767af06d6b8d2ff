"""Handlers and procedures of a server: what they may do, and what becomes of what they raise."""

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from wse_tornado import (
    ErrorCode,
    JsonProtocol,
    Limits,
    Protocol,
    RpcDisconnected,
    WseClient,
    WseError,
)

from ..support import (
    RawPeer,
    beside,
    outcome,
    seconds,
    serve,
    use,
    wait_until,
)
from ..support.leaks import library_threads
from ..support.loops import connected, listening, record_server


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


def test_a_slow_handler_of_one_connection_holds_up_no_other():
    go = threading.Event()

    def setup(server):
        server.channel.on("hold", lambda conn, payload: go.wait(seconds(20)))
        server.channel.on("quick", lambda conn, payload: conn.send("done"))

    with (
        serve("blocking", setup=setup) as served,
        WseClient(served.url) as slow,
        WseClient(served.url) as quick,
    ):
        slow.connect("a")
        quick.connect("b")
        slow.send("hold")
        quick.send("quick")
        assert quick.receive(timeout=seconds(5)).type == "done"
        go.set()


def test_coroutine_handlers_work_and_keep_their_order():
    import asyncio

    seen = []

    async def slow(conn, payload):
        await asyncio.sleep(0.01 if payload % 2 else 0)
        seen.append(payload)

    with (
        serve("blocking", setup=lambda s: s.channel.on("n", slow)) as served,
        WseClient(served.url) as client,
    ):
        client.connect("a")
        for number in range(20):
            client.send("n", number)
        wait_until(lambda: len(seen) == 20)
        assert seen == list(range(20))


def server_threads() -> list[threading.Thread]:
    return [t for t in library_threads() if t.name.startswith("wse-tornado-server")]


def test_more_connections_than_workers_are_all_served():
    def setup(server):
        server.register("echo", lambda conn, payload: time.sleep(0.001) or payload)

    limits = Limits(max_workers=2)
    with serve("blocking", setup=setup, limits=limits) as served, ThreadPoolExecutor(8) as pool:

        def use(number):
            with WseClient(served.url) as client:
                client.connect(f"user-{number}")
                return [client.call("echo", turn) for turn in range(20)]

        for future in [pool.submit(use, number) for number in range(8)]:
            assert future.result(seconds(20)) == list(range(20))
        # Workers that are told to end may still be on their way out.
        wait_until(lambda: len(server_threads()) <= 2 * limits.max_workers)


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


def test_calls_from_the_main_thread_a_handler_and_a_signal():
    answers = []

    def ask(conn, payload=None):
        answers.append(conn.call("number"))

    def setup(server):
        server.channel.on("ask", ask)
        server.when.connected(ask)
        server.register("ask", lambda conn, payload: conn.call("number") * 2)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.register("number", lambda payload: 21)
        client.connect("a")
        client.send("ask")
        assert client.call("ask") == 42
        wait_until(lambda: answers == [21, 21])
        (conn,) = served.server.clients["a"].conns.values()
        assert conn.call("number") == 21
        with pytest.raises(ValueError, match="above 0"):
            conn.call("number", timeout=0)


@pytest.mark.parametrize("coroutine", [False, True])
def test_an_exception_in_a_channel_handler_closes_nothing(flavour: str, coroutine: bool) -> None:
    heard: list[Any] = []

    def broken(payload: Any) -> None:
        heard.append(payload)
        raise ValueError("boom")

    async def broken_async(payload: Any) -> None:
        broken(payload)

    async def server_async(conn: Any, payload: Any) -> None:
        broken(payload)

    def setup(server: Any) -> None:
        handler = server_async if coroutine else lambda conn, payload: broken(payload)
        server.channel.on("mark", handler)

    with serve(flavour, setup=setup) as served, use(flavour, served.url) as used:
        used.client.channel.on("mark", broken_async if coroutine else broken)
        used.connect("ann")
        for n in range(3):
            used.send("mark", n)
            wait_until(lambda n=n: heard == list(range(n + 1)))
        wait_until(lambda: served.names().count("error") == 3)
        heard.clear()
        for n in range(3):
            served.do(served.server.broadcast, "mark", n)
            wait_until(lambda n=n: heard == list(range(n + 1)))
        wait_until(lambda: [event[0] for event in used.events].count("error") == 3)
        assert str(used.client.status) == "READY"
        assert list(served.server.clients) == ["ann"]


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


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

    with serve(flavour, setup=setup) as served, served.enter() as peer:
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
        served.happened("error")


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
    with serve(flavour, setup=setup, protocol=protocol) as served, served.enter() as peer:
        peer.send("odd", None, "1")
        assert peer.recv_message()[0] == "~wse:response-err"


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

        @server.register("slow")
        async def slow(conn: Any, payload: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        with pytest.raises(WseError) as error:
            await client.call("slow")
        assert error.value.code == ErrorCode.RP_EXECUTION_FAILED


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
