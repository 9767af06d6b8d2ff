"""The blocking flavour's threads and waiting (docs/design.md)."""

import asyncio
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from wse_tornado import (
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    Limits,
    LoopThread,
    RpcDisconnected,
    RpcFailed,
    SendTimeout,
    Status,
    WaitTimeout,
    WrongThread,
    WseClient,
    WseServer,
)

from ..support import RawServer, seconds, serve, wait_until
from ..support.leaks import library_threads


def loop_threads():
    return [t for t in library_threads() if t.name == "wse-tornado-loop"]


def welcome(peer):
    """The script of a raw server that lets the client in."""
    assert peer.recv_message()[0] == "~wse:hi"
    peer.send("~wse:welcome", None, None)


def welcome_and_listen(peer):
    welcome(peer)
    while True:
        peer.recv()


def in_thread(fn, *args, **kwargs):
    """Run it on a thread; the future tells how it ends."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(fn, *args, **kwargs)
    pool.shutdown(wait=False)
    return future


# -- the loop thread


def test_all_blocking_objects_share_one_daemon_thread_started_on_first_use():
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1")
    client = WseClient("ws://127.0.0.1:1")
    assert loop_threads() == []
    with server, WseClient(server.url) as other:
        other.connect("a")
        (thread,) = loop_threads()
        assert thread.daemon
        with client:
            with pytest.raises(ConnectionFailed):
                client.connect("b")
            assert loop_threads() == [thread]
    wait_until(lambda: not loop_threads())


def test_a_start_up_error_is_raised_in_the_caller():
    def no_loop():
        raise OSError("no more file descriptors")

    loop = LoopThread(loop_factory=no_loop)
    with pytest.raises(OSError, match="no more file descriptors"):
        WseServer(loop=loop, host="127.0.0.1").start()
    with pytest.raises(OSError, match="no more file descriptors"):
        WseClient("ws://127.0.0.1:1", loop=loop).connect()
    assert not loop.running


def test_a_loop_that_could_not_start_may_start_later():
    failures = [OSError("busy")]

    def factory():
        if failures:
            raise failures.pop()
        return asyncio.new_event_loop()

    loop = LoopThread(loop_factory=factory)
    server = WseServer(identify=lambda auth: auth.identity, host="127.0.0.1", loop=loop)
    with pytest.raises(OSError, match="busy"):
        server.start()
    with server, WseClient(server.url, loop=loop) as client:
        client.connect("a")
        assert client.status == Status.READY


def test_a_private_loop_is_not_the_shared_one():
    with serve("blocking") as served, LoopThread("wse-tornado-private") as loop:
        with WseClient(served.url, loop=loop) as client:
            client.connect("a")
            assert len(loop_threads()) == 1
            assert loop.running
            assert "running users=2" in repr(loop)
    assert repr(loop) == "<LoopThread wse-tornado-private stopped>"


def test_the_loop_thread_ends_with_its_last_user():
    loop = LoopThread("wse-tornado-private")
    with serve("blocking") as served:
        first, second = WseClient(served.url, loop=loop), WseClient(served.url, loop=loop)
        first.connect("a")
        second.connect("b")
        first.close()
        assert loop.running
        second.close()
        assert not loop.running
        first.connect("a")  # and starts again
        assert loop.running
        first.close()


def test_a_loop_may_start_again_while_its_last_thread_still_ends():
    with serve("blocking", conn_per_user=10) as served:
        loop = LoopThread("wse-tornado-private")

        def use(number):
            for _ in range(15):
                with WseClient(served.url, loop=loop, timeout=seconds(10)) as client:
                    client.connect(f"user-{number}")
                    with pytest.raises(LookupError):
                        client.call("missing")

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(use, number) for number in range(4)]:
                future.result(seconds(40))
        assert not loop.running


def test_an_old_thread_that_ends_slowly_does_not_hurt_the_new_one():
    leave = threading.Event()
    released = threading.Event()

    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            released.set()
            while not leave.is_set():  # holds up the end, as slow clean-up does
                await asyncio.sleep(0.001)

    loop = LoopThread("wse-tornado-private")
    loop.acquire()
    tasks = []
    loop.post(lambda: tasks.append(asyncio.ensure_future(stubborn())))
    wait_until(lambda: tasks)
    ending = in_thread(loop.release)
    assert released.wait(seconds(5))
    starting = in_thread(loop.acquire)
    leave.set()
    starting.result(seconds(5))
    ending.result(seconds(5))
    assert loop.running
    answered = threading.Event()
    assert loop.post(answered.set)
    assert answered.wait(seconds(5))
    loop.release()


async def leave_later(conn, payload):
    await asyncio.sleep(0)
    raise SystemExit(3)


async def leave_at_once(conn, payload):
    raise SystemExit(3)


def leave_plainly(conn, payload):
    raise SystemExit(3)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("leave", [leave_later, leave_at_once, leave_plainly])
def test_system_exit_in_a_handler_does_not_end_the_loop(leave, inline):
    def setup(server):
        server.register("leave", leave, inline=inline)
        server.channel.on("leave", leave, inline=inline)
        server.register("add", lambda conn, payload: payload + 1)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        with pytest.raises(RpcFailed):
            client.call("leave", timeout=seconds(5))
        client.send("leave")
        wait_until(lambda: ("error", "wse.handler-failed") in served.events)
        assert client.call("add", 1, timeout=seconds(5)) == 2


def test_blocking_calls_work_inside_a_running_loop():
    async def main():
        with WseServer(identify=lambda auth: auth.identity, host="127.0.0.1") as server:
            server.register("add", lambda conn, payload: payload + 1)
            with WseClient(server.url) as client:
                client.connect("a")
                assert client.call("add", 1) == 2
        return asyncio.get_running_loop()

    assert asyncio.run(main()).is_closed()


def test_no_signal_handlers_are_installed():
    def handlers():
        return [signal.getsignal(number) for number in signal.valid_signals()]

    before = handlers()
    with serve("blocking") as served, WseClient(served.url) as client:
        client.connect("a")
        assert handlers() == before


# -- the wrong thread


def test_blocking_on_the_loop_thread_raises_before_anything_is_scheduled():
    outcomes = {}

    def setup(server):
        def probe(conn, payload):
            attempts = {
                "conn.call": lambda: conn.call("anything"),
                "server.stop": server.stop,
                "server.wait": server.wait,
                "server.start": server.start,
                "connect": lambda: client.connect("b"),
                "call": lambda: client.call("noted"),
                "receive": lambda: client.receive(timeout=1),
                "wait_for": lambda: client.wait_for("news", timeout=1),
                "wait_ready": lambda: client.wait_ready(timeout=1),
                "wait": lambda: client.wait(timeout=1),
                "close": client.close,
                "jump": lambda: client.jump("ws://127.0.0.1:1"),
                "iterate": lambda: next(iter(client)),
            }
            for name, attempt in attempts.items():
                try:
                    attempt()
                except BaseException as exc:
                    outcomes[name] = exc
                else:
                    outcomes[name] = None

        server.register("probe", probe, inline=True)
        server.register("noted", lambda conn, payload: noted.append(payload))

    noted = []
    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.call("probe")
        for name, error in outcomes.items():
            assert type(error) is WrongThread, name
            assert "use a plain handler" in str(error)
            assert isinstance(error, RuntimeError)
        assert client.status == Status.READY
        assert noted == []


def test_coroutine_handlers_may_not_block_either():
    async def handler(conn, payload):
        return conn.call("anything")

    with (
        serve("blocking", setup=lambda server: server.register("probe", handler)) as served,
        WseClient(served.url) as client,
    ):
        client.connect("a")
        with pytest.raises(RpcFailed) as caught:
            client.call("probe")
        assert caught.value.code == "wse.wrong-thread"


# -- deadlines


def test_one_deadline_covers_connecting_and_authentication():
    def stall_after_hi(peer):
        peer.recv()
        peer.send("~wse:challenge", {"nonce": 1}, None)
        peer.recv()
        peer.wait_closed()

    with RawServer(stall_after_hi) as raw, WseClient(raw.url) as client:
        client.challenge(lambda quest: "solved")
        began = time.monotonic()
        with pytest.raises(ConnectTimeout):
            client.connect("a", timeout=0.3)
        assert time.monotonic() - began < 0.3 + seconds(0.5)
        assert client.status == Status.OFFLINE


def test_one_deadline_covers_waiting_to_send_and_the_answer():
    limits = Limits(max_send_buffer=1000, close_timeout=0.1)
    with deaf_server() as raw, WseClient(raw.url, limits=limits) as client:
        client.connect("a")
        fill(client)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            client.call("anything", "x" * 900, timeout=0.3)
        assert time.monotonic() - began < 0.3 + seconds(0.5)
        began = time.monotonic()
        with pytest.raises(SendTimeout):
            client.send("more", "x" * 900, timeout=0.3)
        assert time.monotonic() - began < 0.3 + seconds(0.5)


@contextmanager
def deaf_server():
    """Lets clients in and reads nothing more."""
    over = threading.Event()

    def script(peer):
        welcome(peer)
        over.wait(seconds(30))

    with RawServer(script) as raw:
        try:
            yield raw
        finally:
            over.set()


def fill(client):
    """Send until the buffer is full."""
    with pytest.raises(SendTimeout):
        while True:
            client.send("fill", "x" * 200_000, timeout=0.1)


@pytest.mark.parametrize("size", [10, 600, 900])
def test_waiting_for_room_does_not_burn_the_processor(size):
    limits = Limits(max_send_buffer=1_000_000, close_timeout=0.1)
    with deaf_server() as raw, WseClient(raw.url, limits=limits) as client:
        client.connect("a")
        with pytest.raises(SendTimeout):
            while True:  # ends with less than the bound, and not enough room for one more
                client.send("fill", "x" * 600_000, timeout=0.1)
        busy = time.process_time()
        with pytest.raises(SendTimeout):
            for _ in range(1000):
                client.send("more", "x" * size * 1000, timeout=0.5)
        assert time.process_time() - busy < 0.3


# -- what wakes waiters


def waiters(client):
    """One waiting call of each kind, on threads."""
    client.connect("a")
    waits = {
        "call": in_thread(client.call, "never"),
        "receive": in_thread(client.receive),
        "wait_for": in_thread(client.wait_for, "news"),
        "iterate": in_thread(list, client),
        "wait": in_thread(client.wait),
        "submit": client.submit("never"),
    }
    calls_seen.acquire(timeout=seconds(5))
    calls_seen.acquire(timeout=seconds(5))
    wait_until(lambda: len(client._connector.inbox._waiters) == 3, what="three wait for messages")
    wait_until(lambda: len(client._connector._waiters) == 1, what="one waits for the end")
    return waits


calls_seen = threading.Semaphore(0)


def welcome_and_swallow(peer):
    welcome(peer)
    while True:
        if peer.recv_message()[0] == "never":
            calls_seen.release()


def check_woken(waits):
    with pytest.raises((RpcDisconnected, ConnectionNotReady)):
        waits["call"].result(seconds(1))
    with pytest.raises((RpcDisconnected, ConnectionNotReady)):
        waits["submit"].result(seconds(1))
    with pytest.raises(ConnectionNotReady):
        waits["receive"].result(seconds(1))
    with pytest.raises(ConnectionNotReady):
        waits["wait_for"].result(seconds(1))
    assert waits["iterate"].result(seconds(1)) == []
    assert waits["wait"].result(seconds(1)) is True


def test_a_disconnect_wakes_every_waiter():
    with RawServer(welcome_and_swallow) as raw, WseClient(raw.url) as client:
        waits = waiters(client)
        raw.peers[0].sock.shutdown(socket.SHUT_RDWR)
        check_woken(waits)


def test_close_wakes_every_waiter():
    with RawServer(welcome_and_swallow) as raw, WseClient(raw.url) as client:
        waits = waiters(client)
        client.close()
        check_woken(waits)


def test_close_without_a_socket_wakes_every_waiter():
    # In back-off nothing keeps close() busy, so the loop ends right after it.
    refused = threading.Event()

    def once(peer):
        if refused.is_set():
            return
        refused.set()
        welcome(peer)

    for _ in range(10):
        refused.clear()
        with RawServer(once) as raw, WseClient(raw.url, reconnect=True) as client:
            client.connect("a")
            wait_until(lambda: client.status == Status.RE_CONNECTING)
            waiting, receiving = in_thread(client.wait), in_thread(client.receive)
            wait_until(lambda: client._connector.inbox._waiters and client._connector._waiters)
            client.close()
            assert waiting.result(seconds(1)) is True
            with pytest.raises(ConnectionNotReady):
                receiving.result(seconds(1))


def test_the_end_of_the_loop_wakes_every_waiter():
    loop = LoopThread("wse-tornado-private")
    with RawServer(welcome_and_swallow) as raw:
        client = WseClient(raw.url, loop=loop)
        waits = waiters(client)
        loop.post(loop._run.finish)  # the loop ends below the client
        check_woken(waits)
        client.close()


def test_stop_wakes_every_waiter_of_the_server():
    with serve("blocking") as served, served.peer() as peer:
        peer.hi("a")
        peer.recv()
        wait_until(lambda: served.server.clients)
        (conn,) = served.server.clients["a"].conns.values()
        calling, waiting = in_thread(conn.call, "never"), in_thread(served.server.wait)
        peer.recv()
        stopping = in_thread(served.server.stop)
        with pytest.raises(RpcDisconnected):
            calling.result(seconds(1))
        peer.wait_closed()
        stopping.result(seconds(2))
        assert waiting.result(seconds(1)) is True
        with pytest.raises(RpcDisconnected) as caught:
            conn.call("too late")
        assert not caught.value.sent


# -- which thread runs what


def test_no_callback_runs_on_the_loop_thread():
    names = {}

    def note(key):
        names[key] = threading.current_thread().name

    def identify(auth):
        note("identify")
        auth.accept("a")

    def setup(server):
        server.register("work", lambda conn, payload: note("server procedure"))
        server.channel.on("news", lambda conn, payload: note("server handler"))
        server.when.joined(lambda client, meta: note("joined"))
        server.when.disconnected(lambda conn, code, reason: note("disconnected"))
        server.use_challenge(lambda auth: note("challenge") or {"nonce": 1})

    with serve("blocking", identify=identify, setup=setup) as served:
        with WseClient(served.url) as client:
            client.challenge(lambda quest: note("solver") or 1)
            client.when.ready(lambda welcome: note("ready"))
            client.when.closed(lambda code, reason: note("closed"))
            client.register("back", lambda payload: note("client procedure"))
            client.channel.on("news", lambda payload: note("client handler"))
            client.connect(lambda: note("identity") or "a", lambda: note("meta") or {})
            client.call("work")
            client.send("news")
            (conn,) = served.server.clients["a"].conns.values()
            conn.call("back")
            conn.send("news")
            wait_until(lambda: "server handler" in names and "client handler" in names)
        wait_until(lambda: "disconnected" in names and "closed" in names)
    assert set(names) == set(PLACES)
    assert {key: name.rpartition("-")[0] for key, name in names.items()} == PLACES


PLACES = {
    "identify": "wse-tornado-server",
    "challenge": "wse-tornado-server",
    "joined": "wse-tornado-server",
    "disconnected": "wse-tornado-server",
    "server handler": "wse-tornado-server",
    "server procedure": "wse-tornado-server-call",
    "ready": "wse-tornado-client",
    "closed": "wse-tornado-client",
    "client handler": "wse-tornado-client",
    "client procedure": "wse-tornado-client-call",
    "solver": "wse-tornado-client-call",
    "identity": "wse-tornado-client-call",
    "meta": "wse-tornado-client-call",
}


def test_a_clients_handlers_and_signals_run_in_order_on_one_thread():
    seen, threads = [], set()
    over = threading.Event()

    def script(peer):
        welcome(peer)
        for number in range(300):
            peer.send("odd" if number % 2 else "even", number)
        peer.close(1000, "enough")

    def note(number):
        threads.add(threading.get_ident())
        seen.append(number)

    def closed(code, reason):
        threads.add(threading.get_ident())
        seen.append(reason)
        over.set()

    with RawServer(script) as raw, WseClient(raw.url) as client:
        client.channel.on("odd", note)
        client.channel.on("even", note)
        client.when.closed(closed)
        client.connect("a")
        assert over.wait(seconds(5))
    assert seen == [*range(300), "enough"]
    assert len(threads) == 1


def test_a_callback_may_block_in_call_while_the_other_end_calls_back():
    answers = []

    def setup(server):
        server.register("down", lambda conn, n: ["server", n, n and conn.call("down", n - 1)])

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.register("down", lambda n: ["client", n, n and client.call("down", n - 1)])
        client.channel.on("go", lambda n: answers.append(client.call("down", n)))
        client.connect("a")
        served.server.send("a", "go", 10)  # five levels on each side
        wait_until(lambda: answers)
        answer = answers[0]
        for n in range(10, -1, -1):
            assert answer[:2] == ["client" if n % 2 else "server", n]
            answer = answer[2]


def test_inline_functions_run_on_the_loop_itself():
    names = []

    def note(*_args):
        names.append(threading.current_thread().name)

    def setup(server):
        server.register("work", note, inline=True)
        server.channel.on("news", note, inline=True)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.register("back", note, inline=True)
        client.channel.on("news", note, inline=True)
        client.connect("a")
        client.call("work")
        client.send("news")
        (conn,) = served.server.clients["a"].conns.values()
        conn.call("back")
        conn.send("news")
        wait_until(lambda: len(names) == 4)
    assert set(names) == {"wse-tornado-loop"}


def test_no_executor_threads_are_started():
    def setup(server):
        server.register("add", lambda conn, payload: payload + 1)

    before = set(threading.enumerate())
    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")
        client.call("add", 1)
        new = set(threading.enumerate()) - before
        assert all(t.name.startswith("wse-tornado") and t.daemon for t in new)


def test_exhausted_workers_are_an_error_and_not_a_deadlock():
    def setup(server):
        server.register("down", lambda conn, payload: conn.call("down", payload - 1))

    limits = Limits(max_workers=3)
    with (
        serve("blocking", setup=setup, limits=limits) as served,
        WseClient(served.url, timeout=seconds(20)) as client,
    ):
        client.register("down", lambda payload: client.call("down", payload - 1))
        client.connect("a")
        began = time.monotonic()
        with pytest.raises(RpcFailed) as caught:
            client.call("down", 1000)
        assert caught.value.code == "wse.workers-exhausted"
        assert time.monotonic() - began < seconds(5)
        with pytest.raises(RpcFailed):  # and nothing stays used up
            client.call("down", 1000)


def test_ten_threads_use_one_client_at_once():
    def setup(server):
        server.register("echo", lambda conn, payload: payload)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("a")

        def work(number):
            for turn in range(30):
                assert client.call("echo", [number, turn]) == [number, turn]
            return client.submit("echo", number).result(seconds(5))

        with ThreadPoolExecutor(10) as pool:
            futures = [pool.submit(work, number) for number in range(10)]
            assert [future.result(seconds(20)) for future in futures] == list(range(10))


def test_a_client_that_never_connected_leaves_no_thread():
    statuses = []
    client = WseClient("ws://127.0.0.1:1")
    client.when.updated(statuses.append)
    wait_until(lambda: statuses == [Status.IDLE])
    wait_until(lambda: not library_threads())


def test_an_exception_after_the_end_of_the_loop_is_not_lost(caplog):
    closed = threading.Event()

    def fail(code, reason):
        closed.wait(seconds(5))
        raise ValueError("too late for the loop")

    with RawServer(welcome_and_listen) as raw, WseClient(raw.url) as client:
        client.when.closed(fail)
        client.connect("a")
        client.close()
        closed.set()
        wait_until(lambda: "too late for the loop" in caplog.text)


def test_a_coroutine_handler_after_the_end_of_the_loop_is_reported(caplog):
    first = threading.Event()

    async def closed(code, reason):
        raise AssertionError("there is no loop to run on")

    with RawServer(welcome_and_listen) as raw, WseClient(raw.url) as client:
        client.when.closed(lambda code, reason: first.wait(seconds(5)))
        client.when.closed(closed)
        client.connect("a")
        client.close()
        first.set()
        wait_until(lambda: "loop thread" in caplog.text)


def test_a_stuck_inline_handler_does_not_hold_up_close_for_ever() -> None:
    gate = threading.Event()
    entered = threading.Event()

    def stuck(payload: object) -> None:
        entered.set()
        gate.wait(seconds(20))

    with serve("blocking") as served:
        loop = LoopThread("wse-tornado-stuck")
        client = WseClient(served.url, loop=loop, limits=Limits(close_timeout=0.1))
        client.channel.on("stick", stuck, inline=True)
        client.connect("me")
        served.server.broadcast("stick")
        assert entered.wait(seconds(5))
        with pytest.raises(WaitTimeout):
            client.close()
        gate.set()
        wait_until(lambda: not loop.running)  # closed as soon as the loop is free
