"""docs/wire.md at the client, row by row: a client of each flavour talks to a raw server.

The number in a test's name is the section.
"""

import re
import socket
import struct
from typing import Any

import pytest

from wse_tornado import (
    AsyncWseClient,
    ConnectionFailed,
    ConnectionNotReady,
    NotAuthorized,
    NotSerializable,
    ProtocolError,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
)

from ..support import (
    QUICK,
    Closed,
    RawPeer,
    RawServer,
    beside,
    let_in,
    nothing_sent,
    outcome,
    seconds,
    stay,
    use,
    wait_until,
)
from ..support.peer import BINARY, CLOSE, TEXT
from .test_server import ERROR_ANSWERS, RAISED, UNDECODABLE, IntTypes

HI = '["~wse:hi",{"identity":"ann","meta":{}},null]'


# -- 1. handshake


@pytest.mark.parametrize("selected", [None, "chat"])
def test_1_a_server_that_selects_another_protocol(flavour: str, selected: str | None) -> None:
    def script(peer: RawPeer) -> None:
        with pytest.raises(Closed):
            peer.recv()

    with RawServer(script, protocol=selected) as server:
        with use(flavour, server.url, reconnect=QUICK) as used:
            with pytest.raises((ProtocolError, ConnectionFailed)):
                used.connect("ann", timeout=seconds(5))
            assert str(used.client.status) == "OFFLINE"
        assert len(server.peers) <= 1


def test_1_bytes_of_a_custom_protocol_are_binary_frames(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        assert peer.response_headers["sec-websocket-protocol"] == "test-binary"
        assert peer.recv_frame() == (BINARY, b'[1, {"identity": "ann", "meta": {}}, null]')
        peer.send_bytes(b'[2,"quest",null]')
        assert peer.recv_frame() == (BINARY, b'[2, "solved quest", null]')
        peer.send_bytes(b'[3,"welcome",null]')
        opcode, call = peer.recv_frame()
        match = re.fullmatch(rb'\["add", 7, ("[A-Za-z0-9]{10}")\]', call)
        assert opcode == BINARY and match
        peer.send_bytes(b"[5,8," + match[1] + b"]")
        stay(peer)

    with (
        RawServer(script, protocol="test-binary") as server,
        use(flavour, server.url, protocol=IntTypes()) as used,
    ):
        used.client.challenge(lambda quest: f"solved {quest}")
        assert used.connect("ann") == "welcome"
        assert used.call("add", 7) == 8


def test_1_json_in_a_binary_frame_is_taken(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send_bytes('["~wse:welcome","Привіт",null]'.encode())
        peer.send_bytes('["say","Привіт",null]'.encode())
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        assert used.connect("ann") == "Привіт"
        assert used.receive() == ("say", "Привіт")


# -- 2. message


def test_2_messages_to_the_letter(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        assert peer.response_headers["sec-websocket-protocol"] == "wse-default-json"
        hi = '["~wse:hi",{"identity":"ключ","meta":{"device":"ноутбук"}},null]'
        assert peer.recv_frame() == (TEXT, hi.encode())
        peer.send("~wse:welcome", None, None)
        assert peer.recv() == '["hello",{"message":"Hello server!"},null]'
        assert peer.recv() == '["привіт","œ😀 \u2028",null]'
        assert peer.recv() == '["tick",null,null]'
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ключ", {"device": "ноутбук"})
        used.send("hello", {"message": "Hello server!"})
        used.send("привіт", "œ😀 \u2028")
        used.send("tick")


def test_2_arrays_of_any_length(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send_text('["~wse:welcome"]')
        for frame in ('["a"]', '["b",1]', '["c",2,null,{"seq":1},"more"]'):
            peer.send_text(frame)
        peer.send_text('["double",4,"s1",9]')
        assert peer.recv() == '["~wse:response",8,"s1"]'
        peer.send("done", None, None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("double", lambda payload: payload * 2)
        assert used.connect("ann") is None
        received = [used.receive() for _ in range(3)]
        assert received == [("a", None), ("b", 1), ("c", 2)]
        used.wait_for("done")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), {"x": [float("nan")]}]
)
def test_2_nan_is_the_senders_error(flavour: str, value: Any) -> None:
    answers: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        assert peer.recv() == '["first",null,null]'
        peer.send("bad", None, "s1")
        answers.append(peer.recv_message())
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("bad", lambda payload: value)
        with pytest.raises(NotSerializable):
            used.connect(value)
        with pytest.raises(NotSerializable):
            used.connect("ann", {"value": value})
        assert not server.peers
        used.connect("ann")
        with pytest.raises(NotSerializable):
            used.send("n", value)
        with pytest.raises(NotSerializable):
            used.call("n", value)
        used.send("first")
        wait_until(lambda: answers)
        type, payload, stamp = answers[0]
        assert (type, stamp, payload["code"]) == ("~wse:response-err", "s1", "wse.server.rp.failed")


@pytest.mark.parametrize("frame", UNDECODABLE.values(), ids=UNDECODABLE)
def test_2_what_does_not_decode_ends_the_connection(flavour: str, frame: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_text(frame)
        assert peer.wait_closed() == (1000, "wse.protocol-error")

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        used.happened("closed", 1000, "wse.protocol-error")
        used.happened("error", "wse.server.msg-processing-error")
        used.happened("updated", "OFFLINE")
        assert not [event for event in used.events if event[0] == "ignored"]


@pytest.mark.parametrize("type", ["~wse:hi", "~wse:anything", "", None])
def test_2_reserved_and_empty_types_are_refused_in_the_caller(flavour: str, type: Any) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        assert peer.recv() == '["done",null,null]'
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        client = used.client
        for wrong in (
            lambda: client.send(type, 1),
            lambda: client.call(type, 1),
            lambda: client.register(type, lambda payload: None),
            lambda: client.channel.on(type, lambda payload: None),
            lambda: client.channel.once(type, lambda payload: None),
            lambda: client.wait_for(type, timeout=1),
        ):
            with pytest.raises(ValueError):
                used.do(wrong)
        used.send("done")


@pytest.mark.parametrize("stamp", ["null", "false", "0", '""'])
def test_2_a_falsy_stamp_is_a_plain_message(flavour: str, stamp: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_text(f'["add",1,{stamp}]')
        nothing_sent(peer)
        peer.send("done", None, None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("add", lambda payload: "called")
        used.connect("ann")
        assert used.receive() == ("add", 1)
        used.wait_for("done")


# -- 3. getting in


def test_3_the_way_in_without_a_challenge(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        assert peer.recv() == (
            '["~wse:hi",{"identity":"your-secret-key","meta":{"device":"laptop"}},null]'
        )
        peer.send_text('["~wse:welcome",{"message":"Welcome!"},null]')
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        assert used.connect("your-secret-key", {"device": "laptop"}) == {"message": "Welcome!"}
        used.happened("ready", {"message": "Welcome!"})
        assert used.statuses() == ["IDLE", "CONNECTING", "READY"]
        assert used.events[-1] == ("ready", {"message": "Welcome!"})


@pytest.mark.parametrize("coroutine", [False, True])
def test_3_the_way_in_with_a_challenge(flavour: str, coroutine: bool) -> None:
    def script(peer: RawPeer) -> None:
        assert peer.recv() == HI
        peer.send_text('["~wse:challenge",{"nonce":"abc"},null]')
        assert peer.recv() == '["~wse:challenge",{"solved":"abc"},null]'
        peer.send_text('["~wse:welcome",null,null]')
        stay(peer)

    def solve(quest: Any) -> Any:
        return {"solved": quest["nonce"]}

    async def solve_async(quest: Any) -> Any:
        return {"solved": quest["nonce"]}

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.challenge(solve_async if coroutine else solve)
        assert used.connect("ann") is None


def test_3_refused(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.close(1000, "wse.not-authorized")

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        with pytest.raises(NotAuthorized) as caught:
            used.connect("ann")
        assert caught.value.code == "wse.not-authorized"
        assert isinstance(caught.value, PermissionError)
        used.happened("closed", 1000, "wse.not-authorized")
        assert str(used.client.status) == "OFFLINE"
        assert len(server.peers) == 1


def test_3_the_server_speaks_another_protocol(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.close(1000, "wse.protocol-error")

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        with pytest.raises(ProtocolError):
            used.connect("ann")
        assert len(server.peers) == 1


def test_3_nothing_reaches_user_code_before_the_welcome(flavour: str) -> None:
    heard: list[Any] = []

    def script(peer: RawPeer) -> None:
        peer.recv()
        peer.send("early", 1, None)
        peer.send("add", 1, "s1")
        nothing_sent(peer)
        peer.send("~wse:welcome", None, None)
        peer.send("early", 2, None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.channel.on("early", heard.append)
        used.client.register("add", heard.append)
        used.connect("ann")
        wait_until(lambda: heard)
        assert heard == [2]


@pytest.mark.parametrize(
    "frame",
    [
        "[null,1,null]",
        '["",1,null]',
        '["~wse:hi",{},null]',
        '["~wse:welcome",{},null]',
        '["~wse:challenge",{},null]',
        '["~wse:call",{},"s1"]',
        '["~wse:response",8,null]',
        '["~wse:response-err",{},""]',
        '["~wse:unknown",1,null]',
        '["~wse:unknown",1,"s1"]',
        '["add",1,7]',
        '["add",1,{"success":true}]',
    ],
)
def test_3_what_makes_no_sense_ends_the_connection(flavour: str, frame: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_text(frame)
        assert peer.wait_closed() == (1000, "wse.protocol-error")

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        used.happened("closed", 1000, "wse.protocol-error")
        used.happened("error", "wse.server.protocol-violation")


# -- 4. calls


def test_4_a_call_to_the_server(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        match = re.fullmatch(r'\["add",\{"a":5,"b":3\},"([A-Za-z0-9]{10})"\]', str(peer.recv()))
        assert match
        peer.send_text(f'["~wse:response",8,"{match[1]}"]')
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        assert used.call("add", {"a": 5, "b": 3}) == 8


def test_4_a_call_from_the_server(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send_text('["add",{"a":5,"b":3},"Zk3vQ0aPq1"]')
        assert peer.recv() == '["~wse:response",8,"Zk3vQ0aPq1"]'
        peer.send_text('["subtract",{"a":5,"b":3},"Zk3vQ0aPq1"]')
        assert peer.recv() == (
            '["~wse:response-err",{"code":"wse.server.rp.not-registered"},"Zk3vQ0aPq1"]'
        )
        peer.send("done", None, None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("add", lambda payload: payload["a"] + payload["b"])
        used.connect("ann")
        used.wait_for("done")


def test_4_many_calls_answered_in_reverse(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        asked = [peer.recv_message() for _ in range(20)]
        assert len({stamp for _, _, stamp in asked}) == 20
        for _, payload, stamp in reversed(asked):
            peer.send("~wse:response", payload, stamp)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        answers = [beside(used.call, "echo", n) for n in range(20)]
        assert [outcome(answer) for answer in answers] == list(range(20))


def test_4_an_unknown_answer_is_dropped_in_silence(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        assert peer.recv() == '["timed out",null,null]'
        for late in (stamp, "unknown"):
            peer.send("~wse:response", 8, late)
            peer.send("~wse:response-err", {"code": "x"}, late)
            peer.send("~wse:response-err", None, late)
        nothing_sent(peer)
        peer.send("still", "open", None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        with pytest.raises(RpcTimeout):
            used.call("slow", timeout=0.05)
        used.send("timed out")
        assert used.receive() == ("still", "open")
        assert not [event for event in used.events if event[0] == "error"]


def test_4_an_unknown_procedure(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        peer.send_text(f'["~wse:response-err",{{"code":"wse.server.rp.not-registered"}},"{stamp}"]')
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        with pytest.raises(RpcNotRegistered) as caught:
            used.call("subtract")
        assert caught.value.rpc == "subtract"
        assert caught.value.code == "wse.server.rp.not-registered"


@pytest.mark.parametrize(("error", "payload"), RAISED)
def test_4_what_a_procedure_raises_is_the_answer(
    flavour: str, error: Exception, payload: str
) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("measure", None, "s1")
        assert peer.recv() == f'["~wse:response-err",{payload},"s1"]'
        nothing_sent(peer)
        peer.send("done", None, None)
        stay(peer)

    def measure(payload: Any) -> None:
        raise error

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.client.register("measure", measure)
        used.connect("ann")
        assert used.wait_for("done") is None


@pytest.mark.parametrize(("payload", "code", "details", "text"), ERROR_ANSWERS)
def test_4_every_form_of_error_answer_reaches_the_caller(
    flavour: str, payload: Any, code: str, details: dict[str, Any], text: str
) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        peer.send("~wse:response-err", payload, stamp)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        with pytest.raises(RpcFailed) as caught:
            used.call("buy")
        assert caught.value.rpc == "buy"
        assert caught.value.code == code
        assert caught.value.details == details
        assert text in str(caught.value)


@pytest.mark.parametrize("expose", [False, True])
def test_4_stack_and_payload_only_where_turned_on(flavour: str, expose: bool) -> None:
    answers: list[Any] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.send("measure", {"card": 1}, "s1")
        answers.append(peer.recv_message()[1])
        stay(peer)

    def measure(payload: Any) -> None:
        raise ValueError("boom")

    with RawServer(script) as server, use(flavour, server.url, expose_errors=expose) as used:
        used.client.register("measure", measure)
        used.connect("ann")
        wait_until(lambda: answers)
        details = answers[0]["details"]
        assert ("stack" in details["origin"]) is expose
        assert ("payload" in details) is expose
        assert ("Traceback" in str(answers[0])) is expose


# -- 5. closing


def test_5_close_says_by_client(flavour: str) -> None:
    closings: list[tuple[int, str]] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        closings.append(peer.wait_closed())

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        used.close()
        wait_until(lambda: closings)
        used.connect("ann")  # a closed client may connect again
        used.do(used.client.close, 4321, "enough")
        wait_until(lambda: len(closings) == 2)
        assert closings == [(1000, "wse.by-client"), (4321, "enough")]
        wait_until(lambda: used.closings() == closings)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, "wse.by-server"),
        (1000, "wse.clients-concurrency"),
        (1000, "the shop is closed"),
        (1000, "до зустрічі"),
        (1012, "wse.server-stopping"),
    ],
)
def test_5_the_servers_closing_reaches_closed_and_pending_calls(
    flavour: str, code: int, reason: str
) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        for _ in range(3):
            peer.recv()
        peer.close(code, reason)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        for answer in [beside(used.call, "slow", n) for n in range(3)]:
            with pytest.raises(RpcDisconnected) as caught:
                outcome(answer)
            assert caught.value.code == "wse.client.rp.disconnect"
            assert caught.value.details == {"disconnected": [code, reason]}
            assert caught.value.sent
        used.happened("closed", code, reason)
        used.happened("updated", "OFFLINE")
        with pytest.raises(ConnectionNotReady):
            used.send("more")


@pytest.mark.parametrize(
    ("reason", "on_the_wire"),
    [("x" * 124, "x" * 123), ("é" * 100, "é" * 61), ("x" + "😀" * 40, "x" + "😀" * 30)],
)
def test_5_a_long_reason_is_cut_at_a_character(flavour: str, reason: str, on_the_wire: str) -> None:
    closings: list[tuple[int, str]] = []

    def script(peer: RawPeer) -> None:
        let_in(peer)
        closings.append(peer.wait_closed())

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        used.do(used.client.close, 1000, reason)
        wait_until(lambda: closings == [(1000, on_the_wire)])


def close_with(peer: RawPeer, code: int) -> None:
    """End a connection so that the client sees this code."""
    if code == 1006:
        peer.kill()
        return
    peer.send_frame(CLOSE, b"" if code == 1005 else struct.pack("!H", code) + b"bye")
    stay(peer)


@pytest.mark.parametrize("code", [1005, 1006, 1011, 1012, 1013, 1014, 4000])
def test_5_codes_on_which_a_client_comes_back(flavour: str, code: int) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer, len(server.peers))
        if len(server.peers) == 1:
            close_with(peer, code)
        else:
            stay(peer)

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        used.happened("ready", 2)
        # Where Tornado reads the frames it cannot tell an empty close frame from none.
        seen = used.closings()[0]
        assert seen in ([(1005, ""), (1006, "")] if code == 1005 else [(code, seen[1])])
        assert seen[1] == ("" if code in (1005, 1006) else "bye")
        assert used.statuses() == ["IDLE", "CONNECTING", "READY", "RE_CONNECTING", "READY"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, ""),
        (1000, "wse.by-server"),
        (1000, "wse.not-authorized"),
        (1000, "wse.clients-concurrency"),
        (1000, "any other text"),
        (1001, "over"),
        (1002, "protocol"),
        (1008, "policy"),
        (1009, "too big"),
        (4001, "own"),
    ],
)
def test_5_codes_on_which_a_client_stays_away(flavour: str, code: int, reason: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        peer.close(code, reason)

    with RawServer(script) as server, use(flavour, server.url, reconnect=QUICK) as used:
        used.connect("ann")
        used.happened("closed", code, reason)
        assert used.do(used.client.wait, timeout=seconds(5)) is True
        assert str(used.client.status) == "OFFLINE"
        assert used.statuses() == ["IDLE", "CONNECTING", "READY", "OFFLINE"]
        assert len(server.peers) == 1
        with pytest.raises(ConnectionNotReady):
            used.do(used.client.wait_ready, timeout=seconds(5))


def test_5_a_failed_connect_is_tried_again(flavour: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def script(peer: RawPeer) -> None:
        let_in(peer, "at last")
        stay(peer)

    asked: list[None] = []

    def url() -> str:
        asked.append(None)
        return f"ws://127.0.0.1:{port}"

    with use(flavour, url, reconnect=QUICK) as used:
        welcome = beside(used.connect, "ann", timeout=seconds(10))
        wait_until(lambda: len(asked) >= 3)
        with RawServer(script, port=port) as server:
            assert outcome(welcome) == "at last"
            assert len(server.peers) == 1
            used.close()

    with use(flavour, f"ws://127.0.0.1:{port}") as used:  # without reconnect: at once
        with pytest.raises(ConnectionFailed):
            used.connect("ann")


# -- 6. the older generation


def test_6_an_older_call(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        text = str(peer.recv())
        match = re.fullmatch(r'\["add",\{"a":5,"b":3\},"(~wse:call:add:[A-Za-z0-9]{10})"\]', text)
        assert match, text
        peer.send_text(f'["{match[1]}",8,{{"success":true}}]')
        _, _, stamp = peer.recv_message()
        peer.send_text(f'["{stamp}",null,{{"success":true}}]')
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url, generation="older") as used:
        used.connect("ann")
        assert used.call("add", {"a": 5, "b": 3}) == 8
        assert used.call("nothing") is None


@pytest.mark.parametrize(
    ("third", "code", "details", "text"),
    [
        ('{"code":"shop.sold-out","details":{"left":0}}', "shop.sold-out", {"left": 0}, "sold-out"),
        ('{"code":"x","message":"boom","details":null}', "x", {}, "boom"),
        ('{"success":false,"code":"x"}', "x", {"success": False}, "x"),
        ("{}", "wse.server.rp.failed", {}, ""),
        ("null", "wse.server.rp.failed", {}, ""),
    ],
)
def test_6_an_older_call_that_fails(
    flavour: str, third: str, code: str, details: Any, text: str
) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        peer.send_text(f'["{stamp}",null,{{"code":"wse.server.rp.not-registered"}}]')
        _, _, stamp = peer.recv_message()
        peer.send_text(f'["{stamp}",null,{third}]')
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url, generation="older") as used:
        used.connect("ann")
        with pytest.raises(RpcNotRegistered):
            used.call("subtract")
        with pytest.raises(RpcFailed) as caught:
            used.call("buy", timeout=seconds(5))
        assert caught.value.code == code
        assert caught.value.details == details
        assert text in str(caught.value)


def test_6_late_older_answers_are_dropped(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        assert peer.recv() == '["timed out",null,null]'
        peer.send_text(f'["{stamp}",8,{{"success":true}}]')
        peer.send_text(f'["{stamp}",null,{{"code":"late"}}]')
        nothing_sent(peer)
        peer.send("still", "open", None)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url, generation="older") as used:
        used.connect("ann")
        with pytest.raises(RpcTimeout):
            used.call("slow", timeout=0.05)
        used.send("timed out")
        assert used.receive() == ("still", "open")


def test_6_only_where_it_is_told_to(flavour: str) -> None:
    def script(peer: RawPeer) -> None:
        let_in(peer)
        _, _, stamp = peer.recv_message()
        assert not stamp.startswith("~wse:")
        peer.send("~wse:response", 8, stamp)
        stay(peer)

    with RawServer(script) as server, use(flavour, server.url) as used:
        used.connect("ann")
        assert used.call("add") == 8
        with pytest.raises(ValueError):
            AsyncWseClient(server.url, generation="4.7")  # type: ignore[arg-type]
