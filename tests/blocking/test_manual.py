"""``dispatch="manual"``: everything runs inside ``run`` and ``poll``, on the thread that calls."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wse_tornado import (
    Backoff,
    NotAuthorized,
    RpcFailed,
    RpcTimeout,
    Status,
    WseClient,
    WseError,
)

from ..support import RawServer, seconds, serve, wait_until
from ..support.leaks import library_threads


def manual(served, **options):
    return WseClient(served.url, dispatch="manual", **options)


def test_nothing_runs_before_run_and_all_of_it_on_the_calling_thread():
    threads, seen = set(), []

    def note(value=None):
        threads.add(threading.current_thread())
        seen.append(value)

    with serve("blocking") as served, manual(served) as client:
        client.channel.on("news", note)
        client.when.ready(lambda welcome: note("ready"))
        client.register("work", lambda payload: note("work"))
        client.connect("a")
        (conn,) = served.server.clients["a"].conns.values()
        for number in range(3):
            conn.send("news", number)
        with pytest.raises(RpcTimeout):
            conn.call("work", timeout=0.2)
        assert seen == []
        while len(seen) < 5:
            client.run(timeout=0.05)
        assert seen[:4] == ["ready", 0, 1, 2]
        assert seen[4] == "work"
    assert threads == {threading.current_thread()}


def test_run_answers_calls_as_they_come():
    with serve("blocking") as served, manual(served) as client:
        client.register("double", lambda payload: payload * 2)
        client.connect("a")
        (conn,) = served.server.clients["a"].conns.values()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(conn.call, "double", 21, timeout=seconds(10))
            wait_until(lambda: client.run(timeout=0.02) or call.done())
            assert call.result() == 42


def test_run_returns_when_its_time_is_over():
    with serve("blocking") as served, manual(served) as client:
        client.connect("a")
        began = time.monotonic()
        client.run(timeout=0.1)
        assert 0.1 <= time.monotonic() - began < 0.1 + seconds(0.5)


def test_run_returns_when_the_client_is_offline_after_running_all_that_is_left():
    seen = []

    def script(peer):
        peer.recv()
        peer.send("~wse:welcome", None, None)
        for number in range(200):
            peer.send("news", number)
        peer.close(1000, "enough")

    with (
        RawServer(script) as raw,
        WseClient(raw.url, dispatch="manual") as client,
    ):
        client.channel.on("news", seen.append)
        client.when.closed(lambda code, reason: seen.append(reason))
        client.connect("a")
        client.run()
        assert client.status == Status.OFFLINE
        assert seen == [*range(200), "enough"]


def test_run_before_connect_returns_at_once():
    WseClient("ws://127.0.0.1:1", dispatch="manual").run()


def test_run_ends_when_another_thread_closes_the_client():
    with serve("blocking") as served, manual(served) as client:
        client.connect("a")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(client.run)
            client.close()
            running.result(seconds(2))


def test_poll_runs_what_is_due_and_says_how_many_that_were():
    seen = []
    with serve("blocking") as served, manual(served) as client:
        client.channel.on("news", seen.append)
        client.connect("a")
        while client.poll():
            pass
        (conn,) = served.server.clients["a"].conns.values()
        for number in range(150):
            conn.send("news", number)
        conn.send("unheard")
        client.receive(timeout=seconds(5))
        assert client.poll() == 150
        assert client.poll() == 0
        assert seen == list(range(150))


def test_connect_asks_for_identity_and_challenge_on_the_calling_thread():
    asked = []

    def ask(what, answer):
        asked.append((what, threading.current_thread()))
        return answer

    def setup(server):
        server.use_challenge(lambda auth: {"nonce": 1})

    with serve("blocking", setup=setup) as served, manual(served) as client:
        client.challenge(lambda quest: ask("quest", 1))
        client.connect(lambda: ask("identity", "a"), lambda: ask("meta", {}))
    here = threading.current_thread()
    assert asked == [("identity", here), ("meta", here), ("quest", here)]


def test_connect_runs_no_other_handlers():
    seen = []
    with serve("blocking") as served, manual(served) as client:
        client.when.updated(seen.append)
        client.when.ready(seen.append)
        client.connect(lambda: "a")
        assert seen == []


def test_a_reconnection_asks_for_the_identity_in_run():
    identities = iter(["a", "nobody"])

    def script(peer):
        if peer.recv_message()[1]["identity"] == "a":
            peer.send("~wse:welcome", None, None)
        else:
            peer.close(1000, "wse.not-authorized")

    with (
        RawServer(script) as raw,
        WseClient(raw.url, dispatch="manual", reconnect=Backoff(initial=0.01)) as client,
    ):
        client.connect(lambda: next(identities))
        client.run(timeout=seconds(10))
        assert client.status == Status.OFFLINE
        with pytest.raises(NotAuthorized):
            client.wait()


def test_a_thread_in_run_does_not_take_the_wake_up_of_another_ones_wait():
    with serve("blocking") as served, manual(served) as client:
        client.connect("a")
        client.close()
        for _ in range(5):
            with ThreadPoolExecutor(2) as pool:
                connecting = pool.submit(client.connect, "a", timeout=seconds(20))
                wait_until(lambda: client.status != Status.OFFLINE)
                running = pool.submit(client.run)
                began = time.monotonic()
                connecting.result(seconds(25))
                assert time.monotonic() - began < seconds(5)
                client.close()
                running.result(seconds(5))


def test_an_exception_in_a_handler_goes_to_the_error_signal_and_not_to_run():
    errors = []

    def fail(payload):
        raise ValueError("mine")

    with serve("blocking") as served, manual(served) as client:
        client.channel.on("news", fail)
        client.when.error(errors.append)
        client.connect("a")
        served.server.send("a", "news")
        while not errors:
            client.run(timeout=0.05)
    assert isinstance(errors[0].__cause__, ValueError)


def test_an_interrupted_handler_leaves_what_was_behind_it_due():
    seen = []

    def interrupt(payload):
        raise KeyboardInterrupt

    with serve("blocking") as served, manual(served) as client:
        client.channel.once("news", interrupt)
        client.connect("a")
        served.server.send("a", "news", 1)
        with pytest.raises(KeyboardInterrupt):
            client.run(timeout=seconds(5))
        client.channel.on("news", seen.append)
        served.server.send("a", "news", 2)
        while not seen:
            client.run(timeout=0.05)
        assert seen == [2]


def test_an_interrupted_procedure_still_answers():
    def interrupt(payload):
        raise KeyboardInterrupt

    with serve("blocking") as served, manual(served) as client:
        client.register("work", interrupt)
        client.connect("a")
        (conn,) = served.server.clients["a"].conns.values()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(conn.call, "work", timeout=seconds(10))
            with pytest.raises(KeyboardInterrupt):
                client.run(timeout=seconds(5))
            with pytest.raises(RpcFailed):
                call.result(seconds(5))


def test_a_manual_client_starts_no_thread_but_the_loops():
    with serve("async") as served, manual(served) as client:
        client.register("work", lambda payload: None)
        client.connect(lambda: "a")
        names = {thread.name for thread in library_threads()}
        assert names <= {"wse-tornado-loop", "wse-tornado-test-loop"}


@pytest.mark.parametrize("method", ["run", "poll"])
def test_run_and_poll_of_a_client_with_threads_name_the_way_out(method):
    with pytest.raises(WseError, match='dispatch="manual"'):
        getattr(WseClient("ws://127.0.0.1:1"), method)()


def test_an_unknown_dispatch_is_refused():
    with pytest.raises(ValueError, match='"threads" or "manual"'):
        WseClient("ws://127.0.0.1:1", dispatch="fibers")
