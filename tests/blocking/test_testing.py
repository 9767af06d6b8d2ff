"""The testing kit, used as a user would."""

import threading
from contextlib import ExitStack
from typing import Any

import pytest

from wse_tornado import (
    Backoff,
    ConnectionFailed,
    ConnectTimeout,
    HmacChallenge,
    HmacSolver,
    Limits,
    NotAuthorized,
    RpcTimeout,
    WaitTimeout,
    WseServer,
)
from wse_tornado.testing import Connector, Recorder, connect, serving

from ..support import RawPeer, seconds

# -- servers and clients


def test_a_server_runs_for_the_length_of_a_block_and_lets_everybody_in() -> None:
    with serving() as served:
        assert served.port
        with connect(served, "alice", {"device": "phone"}) as client:
            served.server.register("add", lambda conn, payload: payload["a"] + payload["b"])
            assert client.call("add", {"a": 5, "b": 3}) == 8
            assert list(served.server.clients) == ["alice"]
        with connect(served.url, {"id": 7}) as client:
            assert list(served.server.clients) == ["{'id': 7}"]
    assert served.port is None
    with pytest.raises(ConnectionFailed):
        with connect("ws://127.0.0.1:9"):
            pass


def test_a_server_of_ones_own_is_left_as_it_was() -> None:
    server = WseServer(identify=lambda auth: "someone" if auth.identity == "key" else auth.refuse())
    with serving(server) as served:
        assert served.server is server
        with connect(served, "key"):
            assert list(server.clients) == ["someone"]
        served.refuse_next()
    with server, connect(server, "key"):
        assert list(server.clients) == ["someone"]


def test_a_coroutine_identify_keeps_working() -> None:
    async def identify(auth: Any) -> None:
        auth.accept("someone")

    with serving(identify=identify) as served, connect(served):
        assert list(served.server.clients) == ["someone"]


def test_server_and_options_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="not both"):
        with serving(WseServer(), conn_per_user=2):
            pass


def test_setup_runs_before_the_client_connects() -> None:
    with serving() as served:
        served.server.use_challenge(HmacChallenge(lambda identity: "s3cret"))
        with connect(
            served, "alice", setup=lambda client: client.challenge(HmacSolver("s3cret"))
        ) as client:
            assert client.status == "READY"
        with pytest.raises(NotAuthorized):
            with connect(served, "alice"):
                pass


def test_a_connector_closes_all_its_clients() -> None:
    with serving() as served, serving() as other:
        with Connector(served) as connector:
            clients = [connector("alice"), connector("bob"), connector("carol", to=other)]
            assert sorted(served.server.clients) == ["alice", "bob"]
            assert list(other.server.clients) == ["carol"]
        assert {str(client.status) for client in clients} == {"OFFLINE"}
        served.recorder.wait_for("when.left", count=2)


# -- the recorder


def test_a_recorder_keeps_signals_and_messages_of_both_ends_in_order() -> None:
    with serving() as served, connect(served, "alice") as client:
        recorder = Recorder().watch(client, "news")
        served.server.channel.on("hello", lambda conn, payload: conn.send("news", payload + 1))
        served.recorder.watch(served, "hello")
        client.send("hello", 1)
        assert recorder.wait_for("news").payload == 2
        client.send("unknown", {"n": 1})
        event = served.recorder.wait_for("unknown")
        assert event.payload == {"n": 1}
        assert event.args[0].cid == "alice"
        client.close()
        recorder.wait_for("when.closed")
        served.recorder.wait_for("when.left")
        assert served.recorder.payloads("hello") == [1]
    names = recorder.names()
    assert names.index("when.ready") < names.index("news") < names.index("when.closed")
    assert served.recorder.names()[0] == "when.joined"


def test_wait_for_finds_what_has_happened_and_what_is_to_happen() -> None:
    recorder = Recorder()
    handler = recorder.handler("tick")
    handler(1)
    assert recorder.wait_for("tick").payload == 1
    timer = threading.Timer(0.05, lambda: [handler(2), handler(3)])
    timer.start()
    assert recorder.wait_for("tick", count=3, timeout=seconds(5)).payload == 3
    timer.join()
    assert recorder.wait_for("tick", lambda event: event.payload == 2).args == (2,)
    recorder.record("nothing")
    assert recorder.wait_for("nothing").payload is None
    recorder.clear()
    assert recorder.events == []


def test_wait_for_in_vain_tells_what_happened_instead() -> None:
    recorder = Recorder()
    recorder.record("one")
    with pytest.raises(WaitTimeout, match=r"'two' happened 0 of 1 times .* happened: one"):
        recorder.wait_for("two", timeout=0.01)


# -- faults, as a client sees them


def test_drop_looks_like_a_lost_connection() -> None:
    with serving() as served:
        with connect(served, "alice") as alice, connect(served, "bob") as bob:
            seen = Recorder().watch(alice)
            assert served.drop("alice") == 1
            assert seen.wait_for("when.closed", timeout=seconds(5)).args == (1006, "")
            assert bob.status == "READY"
            assert served.drop() == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4999])
def test_close_arrives_with_code_and_reason(code: int) -> None:
    with serving() as served, connect(served) as client:
        seen = Recorder().watch(client)
        assert served.close(code, "because") == 1
        assert seen.wait_for("when.closed", timeout=seconds(5)).args == (code, "because")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000])
def test_codes_that_cannot_be_sent_are_refused(code: int) -> None:
    with serving() as served, pytest.raises(ValueError, match="cannot be sent"):
        served.close(code)


def test_a_reconnecting_client_comes_back_after_a_fault() -> None:
    with serving() as served:
        with connect(served, reconnect=Backoff(initial=0.01)) as client:
            seen = Recorder().watch(client)
            served.drop()
            seen.wait_for("when.ready", count=2, timeout=seconds(5))
            served.close(1012)
            seen.wait_for("when.ready", count=3, timeout=seconds(5))


def test_a_stalled_server_answers_nothing_until_it_resumes() -> None:
    with serving() as served, connect(served) as client:
        called = Recorder()
        gate = threading.Event()

        @served.server.register("slow")
        def slow(conn: Any, payload: Any) -> str:
            called.record("slow")
            gate.wait(seconds(10))
            return "late"

        served.server.register("echo", lambda conn, payload: payload)
        early = client.submit("slow", timeout=seconds(10))
        called.wait_for("slow")
        with served.stalled():
            gate.set()  # an answer that is ready is held back, too
            with pytest.raises(RpcTimeout):
                client.call("echo", 1, timeout=0.2)  # it reaches the server in the end
            assert not early.done()
            client.send("hello", 1)
            assert "hello" not in served.recorder.names()
            served.server.broadcast("news", 1)
        assert early.result(seconds(10)) == "late"
        assert client.wait_for("news", timeout=seconds(5)) == 1
        served.recorder.wait_for("hello", timeout=seconds(5))
        assert client.call("echo", 2, timeout=seconds(10)) == 2


def test_a_stalled_server_lets_nobody_in_until_it_resumes() -> None:
    with serving() as served:
        served.stall()
        with pytest.raises(ConnectTimeout):
            with connect(served, timeout=0.3):
                pass
        with RawPeer.connect(served.port or 0) as peer:
            peer.hi("alice")
            served.resume()
            assert peer.recv_message()[0] == "~wse:welcome"


def test_a_stalled_server_is_found_out_by_the_clients_heartbeat() -> None:
    limits = Limits(heartbeat=0.1, heartbeat_timeout=0.2)
    with serving() as served, connect(served, limits=limits) as client:
        seen = Recorder().watch(client)
        served.stall()
        code, _ = seen.wait_for("when.closed", timeout=seconds(5)).args
        assert code == 1006


def test_a_stalled_server_can_still_be_told_to_close() -> None:
    with serving() as served, connect(served) as client:
        seen = Recorder().watch(client)
        served.stall()
        assert served.stall() == 1  # twice is once
        assert served.close(1011, "enough") == 1
        assert seen.wait_for("when.closed", timeout=seconds(5)).args == (1011, "enough")
        served.resume()


def test_the_end_of_the_block_ends_a_stall() -> None:
    seen = Recorder()
    with ExitStack() as clients:
        with serving() as served:
            client = clients.enter_context(connect(served))
            seen.watch(client)
            served.stall()
            client.send("hello", 1)
        assert seen.wait_for("when.closed", timeout=seconds(5)).args[0] == 1012


def test_refuse_next_refuses_so_many_and_no_more() -> None:
    with serving() as served:
        served.refuse_next(2)
        for _ in range(2):
            with pytest.raises(NotAuthorized):
                with connect(served):
                    pass
        with connect(served):
            pass
        with pytest.raises(ValueError):
            served.refuse_next(-1)
