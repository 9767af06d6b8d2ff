"""The faults of the JavaScript original, one test each, in the order of DESIGN.md section 8."""

import asyncio
import threading
from typing import Any

import pytest

from wse_tornado import (
    Backoff,
    ConnectionFailed,
    ConnectionNotReady,
    ErrorCode,
    Limits,
    NotAuthorized,
    ReceiveTimeout,
    RpcDisconnected,
    RpcFailed,
    WseError,
)

from .support import Closed, RawPeer, RawServer, Served, seconds, serve, wait_until
from .support.clients import beside, outcome, use
from .support.peer import PING, PONG, TEXT

QUICK = Backoff(initial=0.01, maximum=0.05)


def enter(served: Served, identity: str = "ann", **options: Any) -> RawPeer:
    """A raw peer that is in."""
    peer = served.peer(**options)
    peer.hi(identity)
    assert peer.recv_message()[0] == "~wse:welcome"
    return peer


def newest(served: Served, cid: str = "ann") -> Any:
    """The user's newest connection."""
    return list(served.server.clients[cid].conns.values())[-1]


def nothing_sent(peer: RawPeer) -> None:
    """All that the peer sent so far has been read, and nothing came back."""
    peer.send_frame(PING, b"still there?")
    assert peer.recv_frame() == (PONG, b"still there?")


def let_in(peer: RawPeer, welcome: Any = None) -> None:
    """Play the server up to the welcome."""
    assert peer.recv_message()[0] == "~wse:hi"
    peer.send("~wse:welcome", welcome, None)


def stay(peer: RawPeer) -> None:
    """Until the other end has closed."""
    with pytest.raises(Closed):
        while True:
            peer.recv()


def test_answers_to_stale_stamps_do_not_bounce_between_two_peers(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url) as used:
        server_heard: list[Any] = []
        served.server.channel.on("mark", lambda conn, payload: server_heard.append(payload))
        used.connect("ann")
        answered = threading.Event()

        async def late(payload: Any) -> str:
            await asyncio.sleep(0.05)
            answered.set()
            return "late"

        used.client.register("late", late)
        conn = newest(served)

        def call() -> Any:
            return conn.call("late", timeout=0.01)

        with pytest.raises(TimeoutError):
            served.do(call)
        assert answered.wait(seconds(5))
        for n in range(10):  # what an endless exchange would stand between
            used.send("mark", n)
        wait_until(lambda: server_heard == list(range(10)))
        assert "error" not in served.names()
        assert not [event for event in used.events if event[0] == "error"]
    with serve(flavour) as served, enter(served) as peer:
        for type in ("~wse:response", "~wse:response-err"):
            peer.send(type, {"code": "x"}, "stale")
        nothing_sent(peer)


@pytest.mark.parametrize("cid", [None, "", 0, False])
def test_a_falsy_id_registers_nobody_who_could_call(flavour: str, cid: Any) -> None:
    called: list[Any] = []

    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: called.append(payload))

    with (
        serve(flavour, identify=lambda auth: auth.accept(cid), setup=setup) as served,
        served.peer() as peer,
    ):
        hi = peer.frame(TEXT, b'["~wse:hi",{"identity":"ann"},null]')
        peer.sock.sendall(hi + peer.frame(TEXT, b'["add",1,"s1"]') * 5)
        assert peer.wait_closed() == (1000, "wse.not-authorized")
        assert not called
        assert not served.server.clients
        # What is falsy and no plain "no" is explained; nobody joins either way.
        assert served.names() == ([] if cid is None or cid is False else ["error"])


def test_bad_frames_after_a_refusal_harm_nobody(flavour: str) -> None:
    with serve(flavour) as served, enter(served) as bystander:
        with served.peer() as peer:
            peer.hi("nobody")
            for _ in range(20):
                peer.send_text("{garbage")
                peer.send_bytes(b"\xff\xfe")
            peer.send("~wse:hi", {"identity": "ann"}, None)
            assert peer.wait_closed() == (1000, "wse.not-authorized")
        wait_until(lambda: "connections=1" in repr(served.core))
        nothing_sent(bystander)
        assert list(served.server.clients) == ["ann"]
        with enter(served, "bob"):
            assert len(served.server.clients) == 2


def test_strangers_have_a_time_limit(flavour: str) -> None:
    with serve(flavour, limits=Limits(auth_timeout=0.1)) as served:
        with served.peer() as silent:  # says nothing
            assert silent.wait_closed() == (1013, "wse.auth-timeout")
    asked: list[Any] = []  # identify never decides
    with serve(flavour, limits=Limits(auth_timeout=0.1), identify=asked.append) as served:
        with served.peer() as waiting:
            waiting.hi("ann")
            assert waiting.wait_closed() == (1013, "wse.auth-timeout")
        wait_until(lambda: asked)
        asked[0].accept("ann")  # too late
        with served.peer() as other:
            other.hi("bob")
            wait_until(lambda: len(asked) == 2)
        assert not served.server.clients

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: "quest")

    with serve(flavour, limits=Limits(auth_timeout=0.1), setup=setup) as served:
        with served.peer() as pondering:
            pondering.hi("ann")
            assert pondering.recv_message()[1] == "quest"
            assert pondering.wait_closed() == (1013, "wse.auth-timeout")


def test_a_challenge_has_one_guess(flavour: str) -> None:
    guesses: list[Any] = []

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: "quest")

    def identify(auth: Any) -> None:
        guesses.append(auth.challenge.response)
        if auth.challenge.response == 7:
            auth.accept("ann")
        else:
            auth.refuse()

    with serve(flavour, identify=identify, setup=setup) as served, served.peer() as peer:
        peer.hi("ann")
        assert peer.recv() == '["~wse:challenge","quest",null]'
        frames = [peer.frame(TEXT, b'["~wse:challenge",%d,null]' % guess) for guess in range(10)]
        peer.sock.sendall(b"".join(frames))
        assert peer.wait_closed() == (1000, "wse.not-authorized")
        assert guesses == [0]
        assert not served.server.clients


def test_identify_is_not_called_after_a_wrong_message_in_mid_challenge(flavour: str) -> None:
    identified: list[Any] = []

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: "quest")

    with serve(flavour, identify=identified.append, setup=setup) as served, served.peer() as peer:
        peer.hi("ann")
        assert peer.recv() == '["~wse:challenge","quest",null]'
        wrong = peer.frame(TEXT, b'["hello",1,null]')
        peer.sock.sendall(wrong + peer.frame(TEXT, b'["~wse:challenge","solution",null]'))
        assert peer.wait_closed() == (1000, "wse.protocol-error")
        assert not identified


def test_an_error_answer_with_a_null_payload_ends_the_call(flavour: str) -> None:
    with serve(flavour) as served, enter(served) as peer:
        answer = beside(served.do, newest(served).call, "add")
        peer.send("~wse:response-err", None, peer.recv_message()[2])
        with pytest.raises(RpcFailed):
            outcome(answer)

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("~wse:response-err", None, peer.recv_message()[2])
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        with pytest.raises(RpcFailed):
            used.call("add", timeout=seconds(5))


def test_an_answer_from_another_connection_resolves_nothing(flavour: str) -> None:
    with serve(flavour) as served, enter(served, "ann") as ann, enter(served, "eve") as eve:
        answer = beside(served.do, newest(served, "ann").call, "secret")
        _, _, stamp = ann.recv_message()
        eve.send("~wse:response", "forged", stamp)
        eve.send("~wse:response-err", {"code": "forged"}, stamp)
        nothing_sent(eve)
        assert not answer.done()
        ann.send("~wse:response", "true", stamp)
        assert outcome(answer) == "true"


def test_stamps_cannot_be_guessed_from_one_another(flavour: str) -> None:
    with serve(flavour) as served, enter(served) as peer:
        conn = newest(served)
        answers = [beside(served.do, conn.call, "echo") for _ in range(20)]
        stamps = [peer.recv_message()[2] for _ in answers]
        # Different all over, not a counter: no two share more than a few leading characters.
        assert len({stamp[:5] for stamp in stamps}) == 20
        for stamp in stamps:
            peer.send("~wse:response", None, stamp)
        for answer in answers:
            outcome(answer)


def test_another_connections_end_does_not_cost_a_call_its_disconnect_notice(flavour: str) -> None:
    with serve(flavour, conn_per_user=2) as served:
        first, second, other = enter(served), enter(served), enter(served, "bob")
        conns = list(served.server.clients["ann"].conns.values())
        answers = [beside(served.do, conn.call, "slow") for conn in conns]
        first.recv()
        second.recv()
        other.close(1000, "wse.by-client")
        wait_until(lambda: "bob" not in served.server.clients)
        first.close(1000, "first")
        with pytest.raises(RpcDisconnected) as caught:
            outcome(answers[0])
        assert caught.value.details == {"disconnected": [1000, "first"]}
        assert not answers[1].done()
        second.close(1000, "second")
        with pytest.raises(RpcDisconnected) as caught:
            outcome(answers[1])
        assert caught.value.details == {"disconnected": [1000, "second"]}


def test_connect_returns_when_refused_with_reconnect_on(flavour: str) -> None:
    with serve(flavour) as served, use(flavour, served.url, reconnect=QUICK) as used:
        with pytest.raises(NotAuthorized):
            used.connect("nobody", timeout=seconds(20))
        assert str(used.client.status) == "OFFLINE"
        used.connect("ann")


@pytest.mark.parametrize("reconnect", [False, QUICK])
def test_connect_returns_when_there_is_no_challenge_solver(flavour: str, reconnect: Any) -> None:
    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: "quest")

    with (
        serve(flavour, setup=setup) as served,
        use(flavour, served.url, reconnect=reconnect) as used,
    ):
        with pytest.raises(NotAuthorized) as caught:
            used.connect("ann", timeout=seconds(20))
        assert caught.value.code == ErrorCode.INVALID_CRA_HANDLER
        assert not served.server.clients

        def broken(quest: Any) -> None:
            raise ValueError("no key")

        used.client.challenge(broken)
        with pytest.raises(NotAuthorized) as caught:
            used.connect("ann", timeout=seconds(20))
        assert "no key" in str(caught.value)


def test_close_stops_a_reconnect(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.kill()

    slow = Backoff(initial=1000, maximum=1000)
    with RawServer(script) as server, use(flavour, server.url, reconnect=slow) as used:
        used.connect("ann")
        wait_until(lambda: str(used.client.status) == "RE_CONNECTING")
        used.close()
        assert str(used.client.status) == "OFFLINE"
        with pytest.raises(ConnectionNotReady):
            used.do(used.client.wait_ready, timeout=seconds(5))
        assert len(server.peers) == 1


def test_close_stops_a_connect_that_tries_again_and_again(flavour: str) -> None:
    asked: list[str] = []
    target = "ws://127.0.0.1:1"

    def url() -> str:
        asked.append(target)
        return target

    def script(peer: RawPeer) -> None:
        let_in(peer)
        stay(peer)

    with RawServer(script) as server, use(flavour, url, reconnect=QUICK) as used:
        welcome = beside(used.connect, "ann", timeout=seconds(30))
        wait_until(lambda: len(asked) > 2)
        used.close()
        with pytest.raises((ConnectionFailed, ConnectionNotReady)):
            outcome(welcome)
        assert str(used.client.status) == "OFFLINE"
        target = server.url
        used.connect("ann")
        with pytest.raises(ReceiveTimeout):  # many times the longest back-off
            used.do(used.client.receive, timeout=0.3)
        assert asked.count(server.url) == 1
        assert len(server.peers) == 1


def test_accepting_a_dead_socket_leaves_no_ghost(flavour: str) -> None:
    asked: list[Any] = []
    with serve(flavour, identify=asked.append) as served:
        for end in (RawPeer.kill, RawPeer.close):
            peer = served.peer()
            peer.hi("ann")
            wait_until(lambda: asked)
            end(peer)
            wait_until(lambda: "connections=0" in repr(served.core))
            asked.pop().accept("ann")  # nobody is there any more
        with served.peer() as later:
            later.hi("bob")
            wait_until(lambda: asked)
            asked.pop().accept("bob")
            assert later.recv_message()[0] == "~wse:welcome"
            assert list(served.server.clients) == ["bob"]
        wait_until(lambda: "left" in served.names())
        assert [event[1] for event in served.events] == ["bob"] * 4


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "wse.by-client"), (4000, "jump"), (1001, "tab closed")]
)
def test_left_comes_once_and_with_the_true_code(flavour: str, code: int, reason: str) -> None:
    with serve(flavour, conn_per_user=2) as served:
        first, second = enter(served), enter(served)
        first.close(1000, "first")
        wait_until(lambda: "disconnected" in served.names())
        assert "left" not in served.names()
        second.close(code, reason)
        wait_until(lambda: "left" in served.names())
        enter(served, "bob").close(1000, "last")
        wait_until(lambda: ("left", "bob", 1000, "last") in served.events)
        assert served.names().count("left") == 2
        assert ("left", "ann", code, reason) in served.events


def test_left_comes_once_when_the_server_drops_and_the_peer_dies(flavour: str) -> None:
    with serve(flavour) as served:
        peer = enter(served)
        served.do(served.server.drop_client, "ann", "enough")
        peer.kill()
        wait_until(lambda: "connections=0" in repr(served.core))
        enter(served, "bob").close(1000, "last")
        wait_until(lambda: ("left", "bob", 1000, "last") in served.events)
        assert [event for event in served.events if event[:2] == ("left", "ann")] == [
            ("left", "ann", 1000, "enough")
        ]


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


@pytest.mark.parametrize("coroutine", [False, True])
def test_identify_that_raises_refuses_and_harms_nobody(flavour: str, coroutine: bool) -> None:
    def identify(auth: Any) -> None:
        if auth.identity == "bad":
            raise LookupError("no such user")
        auth.accept(auth.identity)

    async def identify_async(auth: Any) -> None:
        await asyncio.sleep(0)
        identify(auth)

    with serve(flavour, identify=identify_async if coroutine else identify) as served:
        with enter(served) as bystander, served.peer() as peer:
            peer.hi("bad")
            assert peer.wait_closed() == (1000, "wse.not-authorized")
            wait_until(lambda: "error" in served.names())
            nothing_sent(bystander)
            assert list(served.server.clients) == ["ann"]


@pytest.mark.parametrize("error", [ValueError("boom"), WseError("own.code", {"a": 1})])
def test_no_stack_reaches_the_peer(flavour: str, error: Exception) -> None:
    def broken(*args: Any) -> None:
        raise error

    def setup(server: Any) -> None:
        server.register("broken", broken)

    with serve(flavour, setup=setup) as served, enter(served) as peer:
        peer.send("broken", {"card": "4242"}, "s1")
        answer = str(peer.recv())
        for leak in ("Traceback", "stack", ".py", "4242", "line"):
            assert leak not in answer

    answers: list[str] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("broken", {"card": "4242"}, "s1")
        answers.append(str(peer.recv()))
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("broken", broken)
        used.connect("ann")
        wait_until(lambda: answers)
        for leak in ("Traceback", "stack", ".py", "4242", "line"):
            assert leak not in answers[0]


def test_jump_takes_its_new_identity(flavour: str) -> None:
    with serve(flavour) as first, serve(flavour) as second:
        with use(flavour, first.url) as used:
            used.connect("ann", {"seat": 1})
            used.do(used.client.jump, second.url, "bob", {"seat": 2})
            assert list(second.server.clients) == ["bob"]
            assert newest(second, "bob").meta == {"seat": 2}
            wait_until(lambda: ("left", "ann", 4000, "jump") in first.events)
            used.do(used.client.jump, first.url)  # the present identity goes along
            assert list(first.server.clients) == ["bob"]
            assert newest(first, "bob").meta == {"seat": 2}


def test_forwarded_addresses_are_not_believed_from_anyone(flavour: str) -> None:
    seen: list[str] = []

    def identify(auth: Any) -> None:
        seen.append(auth.remote_addr)
        auth.accept("ann")

    headers = {"X-Forwarded-For": "6.6.6.6", "X-Real-Ip": "6.6.6.6", "X-Scheme": "https"}
    with serve(flavour, identify=identify) as served, enter(served, headers=headers):
        assert seen == ["127.0.0.1"]
        assert newest(served).remote_addr == "127.0.0.1"
