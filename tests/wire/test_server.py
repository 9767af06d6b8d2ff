"""docs/wire.md at the server, row by row: a raw peer talks to a server of each flavour.

The number in a test's name is the section.
"""

import asyncio
import json
import re
import threading
from typing import Any

import pytest

from wse_tornado import (
    NotSerializable,
    Protocol,
    RpcDisconnected,
    RpcFailed,
    RpcNotRegistered,
    WseError,
)

from ..support import RawPeer, Served, beside, nothing_sent, outcome, serve, wait_until
from ..support.peer import BINARY, TEXT

PROTOCOL_ERROR = (1000, "wse.protocol-error")
NOT_AUTHORIZED = (1000, "wse.not-authorized")
FALSY = (None, "", 0, False, ())
WELCOME = '["~wse:welcome",{"message":"Welcome!"},null]'


def nobody_in(served: Served) -> bool:
    """No user is registered, and none ever was."""
    return not served.server.clients and not {"joined", "connected"} & set(served.names())


class IntTypes(Protocol):
    """JSON in bytes, small integers as internal types."""

    name = "test-binary"
    internal_types = {  # noqa: RUF012 - as a user would write it
        "hi": 1,
        "challenge": 2,
        "welcome": 3,
        "call": 4,
        "response": 5,
        "response_error": 6,
    }

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> bytes:
        return json.dumps([type, payload, stamp]).encode()

    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = json.loads(data)
        return type, payload, stamp


# -- 1. handshake


@pytest.mark.parametrize("offer", [None, "chat", "WSE-default-json, wse-default-json2"])
def test_1_without_the_protocol_the_server_closes_at_once(flavour: str, offer: str | None) -> None:
    with serve(flavour) as served, served.peer(protocols=offer) as peer:
        assert "sec-websocket-protocol" not in peer.response_headers
        assert peer.wait_closed() == PROTOCOL_ERROR
        assert nobody_in(served)


def test_1_bytes_of_a_custom_protocol_are_binary_frames(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: payload["a"] + payload["b"])

    with (
        serve(flavour, protocol=IntTypes(), setup=setup) as served,
        served.peer(protocols="test-binary") as peer,
    ):
        assert peer.response_headers["sec-websocket-protocol"] == "test-binary"
        peer.send_bytes(b'[1,{"identity":"ann"},null]')
        assert peer.recv_frame() == (BINARY, b'[3, {"message": "Welcome!"}, null]')
        peer.send_bytes(b'["add",{"a":5,"b":3},"Zk3vQ0aPq1"]')
        assert peer.recv_frame() == (BINARY, b'[5, 8, "Zk3vQ0aPq1"]')
        peer.send_bytes(b'["no",null,"Zk3vQ0aPq1"]')
        assert peer.recv_frame() == (
            BINARY,
            b'[6, {"code": "wse.server.rp.not-registered"}, "Zk3vQ0aPq1"]',
        )
        peer.send_bytes(b'["add",{"a":5,"b":3},"4:add:Zk3v"]')  # section 6, by this call marker
        assert peer.recv_frame() == (BINARY, b'["4:add:Zk3v", 8, {"success": true}]')
        peer.send_bytes(b'[1,{"identity":"ann"},null]')
        assert peer.wait_closed() == PROTOCOL_ERROR


def test_1_json_in_a_binary_frame_is_taken(flavour: str) -> None:
    with serve(flavour) as served, served.peer() as peer:
        peer.send_bytes(b'["~wse:hi",{"identity":"ann"},null]')
        assert peer.recv() == WELCOME
        peer.send_bytes('["say","Привіт",null]'.encode())
        served.happened("ignored", "say", "Привіт")
        peer.send_bytes('["say","Привіт",null]'.encode("utf-16"))
        assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.msg-processing-error")


# -- 2. message


def test_2_messages_are_compact_utf8_and_not_escaped(flavour: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        served.do(served.server.broadcast, "hello", {"message": "Hello server!", "n": [1, 2.5]})
        assert peer.recv() == '["hello",{"message":"Hello server!","n":[1,2.5]},null]'
        served.do(served.server.broadcast, "привіт", "œ😀 \u2028")
        assert peer.recv_frame() == (TEXT, '["привіт","œ😀 \u2028",null]'.encode())
        assert served.do(served.server.broadcast, "tick") == 1
        assert peer.recv() == '["tick",null,null]'


@pytest.mark.parametrize(
    ("frame", "payload"), [('["tick"]', None), ('["tick",1]', 1), ('["tick",null,null]', None)]
)
def test_2_short_arrays_are_padded_with_null(flavour: str, frame: str, payload: Any) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text(frame)
        served.happened("ignored", "tick", payload)
        nothing_sent(peer)


def test_2_elements_past_the_third_are_ignored(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("double", lambda conn, payload: payload * 2)

    with serve(flavour, setup=setup) as served, served.peer() as peer:
        peer.send_text('["~wse:hi",{"identity":"ann"},null,{"resume":7},8]')
        assert peer.recv() == WELCOME
        peer.send_text('["tick",1,null,99,"more"]')
        served.happened("ignored", "tick", 1)
        peer.send_text('["double",4,"s1",[1]]')
        assert peer.recv() == '["~wse:response",8,"s1"]'


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), [{"x": float("nan")}]]
)
def test_2_nan_is_the_senders_error(flavour: str, value: Any) -> None:
    def setup(server: Any) -> None:
        server.register("bad", lambda conn, payload: value)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        with pytest.raises(NotSerializable):
            served.do(served.server.broadcast, "n", value)
        with pytest.raises(NotSerializable):
            served.do(served.server.send, "ann", "n", value)
        with pytest.raises(NotSerializable):
            served.do(served.conn().send, "n", value)
        with pytest.raises(NotSerializable):
            served.do(served.conn().call, "n", value)
        nothing_sent(peer)
        peer.send("bad", None, "s1")
        type, payload, stamp = peer.recv_message()
        assert (type, stamp, payload["code"]) == ("~wse:response-err", "s1", "wse.server.rp.failed")


@pytest.mark.parametrize("type", ["~wse:hi", "~wse:anything", "", None])
def test_2_reserved_and_empty_types_are_refused_in_the_caller(flavour: str, type: Any) -> None:
    with serve(flavour) as served, served.enter() as peer:
        server, conn = served.server, served.conn()
        for send in (
            lambda: server.broadcast(type, 1),
            lambda: server.send("ann", type, 1),
            lambda: server.clients["ann"].send(type, 1),
            lambda: conn.send(type, 1),
        ):
            with pytest.raises(ValueError):
                served.do(send)
        with pytest.raises(ValueError):
            served.do(conn.call, type, 1)
        with pytest.raises(ValueError):
            server.register(type, lambda conn, payload: None)
        with pytest.raises(ValueError):
            server.channel.on(type, lambda conn, payload: None)
        with pytest.raises(ValueError):
            server.channel.once(type, lambda conn, payload: None)
        nothing_sent(peer)


@pytest.mark.parametrize("type", [7, ("a",), True])
def test_2_a_type_that_is_no_string_is_the_senders_error(flavour: str, type: Any) -> None:
    with serve(flavour) as served, served.enter() as peer:
        with pytest.raises((ValueError, TypeError)):
            served.do(served.server.broadcast, type, 1)
        with pytest.raises((ValueError, TypeError)):
            served.do(served.conn().send, type, 1)
        nothing_sent(peer)


@pytest.mark.parametrize("stamp", ["null", "false", "0", '""'])
def test_2_a_falsy_stamp_is_a_plain_message(flavour: str, stamp: str) -> None:
    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: "called")

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text(f'["add",1,{stamp}]')
        served.happened("ignored", "add", 1)
        nothing_sent(peer)


@pytest.mark.parametrize("stamp", ["7", "true", '["s"]', '{"success":true}'])
def test_2_a_stamp_that_is_no_string_is_a_violation(flavour: str, stamp: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text(f'["add",1,{stamp}]')
        assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.protocol-violation")


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ('{"a":1,"a":2}', {"a": 2}),  # duplicate keys: the last one counts, as in JavaScript
        ('"\\ud800"', "\ud800"),  # a lone surrogate travels as its escape
        ("18446744073709551617", 18446744073709551617),
        ('"\\u0000"', "\x00"),
        ('{"__proto__":1,"constructor":2}', {"__proto__": 1, "constructor": 2}),
    ],
)
def test_2_odd_but_legal_values_are_carried_unharmed(flavour: str, sent: str, value: Any) -> None:
    got = []

    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: got.append(payload) or payload)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text(f'["echo",{sent},"s"]')
        assert peer.recv_message() == ["~wse:response", value, "s"]
        assert got == [value]


def test_2_a_number_that_is_infinite_here_cannot_be_sent_back(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("echo", lambda conn, payload: payload)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text('["echo",1e999,"s"]')
        kind, error, stamp = peer.recv_message()
        assert (kind, error["code"], stamp) == (
            "~wse:response-err",
            "wse.server.rp.failed",
            "s",
        )
        assert served.alive()


# -- 3. getting in


@pytest.mark.parametrize("offer", ["wse-default-json", "chat, wse-default-json, other"])
def test_3_the_way_in_without_a_challenge(flavour: str, offer: str) -> None:
    seen = []

    def identify(auth: Any) -> None:
        seen.append((auth.identity, auth.meta, auth.challenge))
        auth.accept("user-123", {"message": "Welcome!"})

    with serve(flavour, identify=identify) as served, served.peer(protocols=offer) as peer:
        assert peer.response_headers["sec-websocket-protocol"] == "wse-default-json"
        peer.send_text('["~wse:hi",{"identity":"your-secret-key","meta":{"device":"laptop"}},null]')
        assert peer.recv() == '["~wse:welcome",{"message":"Welcome!"},null]'
        assert seen == [("your-secret-key", {"device": "laptop"}, None)]
        assert list(served.server.clients) == ["user-123"]


def test_3_the_way_in_with_a_challenge(flavour: str) -> None:
    seen = []

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: {"nonce": auth.identity[::-1]})

    def identify(auth: Any) -> None:
        seen.append((auth.identity, auth.challenge.quest, auth.challenge.response))
        auth.accept("user-123")

    with serve(flavour, identify=identify, setup=setup) as served, served.peer() as peer:
        peer.send_text('["~wse:hi",{"identity":"key","meta":{}},null]')
        assert peer.recv() == '["~wse:challenge",{"nonce":"yek"},null]'
        assert not seen
        peer.send_text('["~wse:challenge",{"any":["JSON",1]},null]')
        assert peer.recv() == '["~wse:welcome",null,null]'
        assert seen == [("key", {"nonce": "yek"}, {"any": ["JSON", 1]})]


@pytest.mark.parametrize(
    "frame",
    [
        '["hello",1,null]',
        '["add",1,"s1"]',
        '["~wse:challenge",1,null]',
        '["~wse:welcome",1,null]',
        '["~wse:call",1,null]',
        '["~wse:response",1,"s1"]',
        '["~wse:response-err",1,"s1"]',
        '["~wse:unknown",1,null]',
        "[null,null,null]",
        '["",null,null]',
    ],
)
def test_3_a_stranger_sends_anything_but_hi(flavour: str, frame: str) -> None:
    with serve(flavour) as served, served.peer() as peer:
        peer.send_text(frame)
        assert peer.wait_closed() == PROTOCOL_ERROR
        assert nobody_in(served)


@pytest.mark.parametrize(
    "payload",
    [
        "null",
        '"ann"',
        "[]",
        "7",
        '{"identity":"ann","meta":7}',
        '{"identity":"ann","meta":[]}',
        '{"identity":"ann","meta":"laptop"}',
        '{"identity":"ann","meta":false}',
    ],
)
def test_3_a_malformed_hi(flavour: str, payload: str) -> None:
    with serve(flavour) as served, served.peer() as peer:
        peer.send_text(f'["~wse:hi",{payload},null]')
        assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error")
        assert nobody_in(served)


@pytest.mark.parametrize("payload", ['{"identity":"ann"}', '{"identity":"ann","meta":null}'])
def test_3_absent_or_null_meta_is_empty(flavour: str, payload: str) -> None:
    with serve(flavour) as served, served.peer() as peer:
        peer.send_text(f'["~wse:hi",{payload},null]')
        assert peer.recv() == WELCOME
        served.happened("joined", "ann", {})


@pytest.mark.parametrize(
    "frame",
    [
        '["hello",1,null]',
        '["add",1,"s1"]',
        '["~wse:hi",{"identity":"ann"},null]',
        '["~wse:welcome",1,null]',
        '["~wse:response",1,"s1"]',
        "[null,null,null]",
    ],
)
def test_3_challenged_sends_anything_but_challenge(flavour: str, frame: str) -> None:
    identified = []

    def setup(server: Any) -> None:
        server.use_challenge(lambda auth: "quest")

    with serve(flavour, identify=identified.append, setup=setup) as served, served.peer() as peer:
        peer.hi("ann")
        assert peer.recv() == '["~wse:challenge","quest",null]'
        frames = (frame, '["~wse:challenge","solution",null]')
        peer.sock.sendall(b"".join(peer.frame(TEXT, each.encode()) for each in frames))
        assert peer.wait_closed() == PROTOCOL_ERROR
        assert not identified
        assert nobody_in(served)


def test_3_anything_while_validating_is_ignored(flavour: str) -> None:
    waiting: list[Any] = []  # identify leaves the verdict open
    heard = []

    def setup(server: Any) -> None:
        server.channel.on("hello", lambda conn, payload: heard.append(payload))
        server.register("add", lambda conn, payload: heard.append(payload))

    with serve(flavour, identify=waiting.append, setup=setup) as served, served.peer() as peer:
        peer.hi("ann")
        wait_until(lambda: waiting)
        peer.send_text('["hello",1,null]')
        peer.send_text('["add",1,"s1"]')
        peer.send_text('["~wse:hi",{"identity":"bob"},null]')
        peer.send_text('["~wse:challenge",1,null]')
        peer.send_text("[null,null,null]")
        nothing_sent(peer)
        waiting[0].accept("ann", "in")
        assert peer.recv() == '["~wse:welcome","in",null]'
        peer.send("hello", "later", None)
        wait_until(lambda: heard)
        assert heard == ["later"]
        assert len(waiting) == 1
        assert list(served.server.clients) == ["ann"]


async def refuse_slowly(auth: Any) -> None:
    await asyncio.sleep(0.01)
    auth.refuse()


def fail(auth: Any) -> None:
    raise LookupError("no such user")


async def fail_slowly(auth: Any) -> None:
    await asyncio.sleep(0.01)
    fail(auth)


KEPT_OUT = {
    "refuses": (lambda auth: auth.refuse(), False),
    "refuses slowly": (refuse_slowly, False),
    "refuses on a thread": (lambda auth: threading.Timer(0.01, auth.refuse).start(), False),
    # None and False are a plain no; any other falsy id is a mistake, which is explained.
    **{
        f"accepts {cid!r}": (
            lambda auth, cid=cid: auth.accept(cid),
            cid is not None and cid is not False,
        )
        for cid in FALSY
    },
    **{f"returns {cid!r}": (lambda auth, cid=cid: cid, cid is not False) for cid in ("", 0, False)},
    "returns True": (lambda auth: True, True),
    "returns a list": (lambda auth: ["unhashable"], True),
    "welcomes with an object": (lambda auth: auth.accept("user", object()), True),
    "raises": (fail, True),
    "raises slowly": (fail_slowly, True),
    "is missing": (None, True),
}


@pytest.mark.parametrize(("identify", "told"), KEPT_OUT.values(), ids=KEPT_OUT)
def test_3_whom_identify_does_not_accept_is_closed(flavour: str, identify: Any, told: bool) -> None:
    called: list[Any] = []

    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: called.append(payload))

    with serve(flavour, identify=identify, setup=setup) as served, served.peer() as peer:
        hi = peer.frame(TEXT, b'["~wse:hi",{"identity":"ann"},null]')
        peer.sock.sendall(hi + peer.frame(TEXT, b'["add",1,"s1"]') * 5)
        assert peer.wait_closed() == NOT_AUTHORIZED
        if told:
            served.happened("error")
        assert nobody_in(served)
        assert not called
        assert served.names() == ["error"] * told


def test_3_accept_joins_welcomes_and_tells_in_this_order(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.when.joined(lambda client, meta: client.send("joined", len(client.conns)))
        server.when.connected(lambda conn: conn.send("connected", conn.meta))

    with serve(flavour, setup=setup, conn_per_user=2) as served, served.peer() as first:
        first.hi("ann", {"device": "laptop"})
        assert first.recv() == WELCOME
        assert list(served.server.clients) == ["ann"]  # already
        assert first.recv() == '["joined",1,null]'
        assert first.recv() == '["connected",{"device":"laptop"},null]'
        with served.peer() as second:
            second.hi("ann", {"device": "phone"})
            assert second.recv() == WELCOME
            assert second.recv() == '["connected",{"device":"phone"},null]'
            assert len(served.server.clients["ann"].conns) == 2
            nothing_sent(first)
            assert served.names() == ["joined", "connected", "connected"]


@pytest.mark.parametrize("devices", [1, 2])
def test_3_the_oldest_connection_is_pushed_out(flavour: str, devices: int) -> None:
    with serve(flavour, conn_per_user=devices) as served:
        peers = [served.enter() for _ in range(devices)]
        newest = served.enter()
        assert peers[0].wait_closed() == (1000, "wse.clients-concurrency")
        for peer in [*peers[1:], newest]:
            nothing_sent(peer)
        served.happened("disconnected", "ann", 1000, "wse.clients-concurrency")
        assert len(served.server.clients["ann"].conns) == devices
        assert served.names().count("joined") == 1
        assert "left" not in served.names()
        for peer in [*peers[1:], newest]:
            peer.close()


UNDECODABLE = {
    **{text or "empty": text for text in ("", "{", "null", "7", '"hi"', "{}", "[]", "[7,1,null]")},
    "a list as type": '[["hello"],1,null]',
    **{text: f'["n",{text},null]' for text in ("NaN", "Infinity", "-Infinity", '{"x":[NaN]}')},
    "a tail": '["x",1,null] trailing',
    "nested without end": "[" * 60_000,  # within max_hello_size
    "a payload nested without end": '["x",' + "[" * 30_000 + "]" * 30_000 + ",null]",
    "more digits than Python converts": '["x",' + "9" * 10_000 + ",null]",
}


@pytest.mark.parametrize("frame", UNDECODABLE.values(), ids=UNDECODABLE)
def test_3_a_frame_that_does_not_decode(flavour: str, frame: str) -> None:
    with serve(flavour) as served:
        with served.peer() as stranger:
            stranger.send_text(frame)
            assert stranger.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.msg-processing-error")
        assert nobody_in(served)
        served.events.clear()
        with served.enter() as peer:
            peer.send_text(frame)
            assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.msg-processing-error")
        served.happened("left", "ann", 1000, "wse.protocol-error")
        assert served.alive()


@pytest.mark.parametrize(
    "frame", ["[null,1,null]", '["",1,null]', "[null]", '["",1,""]', "[0,1,0]"]
)
def test_3_a_message_with_neither_type_nor_stamp(flavour: str, frame: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text(frame)
        assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.protocol-violation")


@pytest.mark.parametrize(
    "frame",
    [
        '["~wse:hi",{"identity":"ann"},null]',
        '["~wse:hi",{"identity":"ann"},"s1"]',
        '["~wse:challenge","solution",null]',
        '["~wse:welcome",{},null]',
        '["~wse:call",{},null]',
        '["~wse:call",{},"s1"]',
        '["~wse:response",8,null]',
        '["~wse:response",8,""]',
        '["~wse:response-err",{},null]',
        '["~wse:unknown",{},null]',
        '["~wse:unknown",{},"s1"]',
    ],
)
def test_3_an_internal_type_that_makes_no_sense(flavour: str, frame: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text(frame)
        assert peer.wait_closed() == PROTOCOL_ERROR
        served.happened("error", "wse.server.protocol-violation")
        served.happened("left", "ann", 1000, "wse.protocol-error")


def test_3_nothing_reaches_user_code_before_valid(flavour: str) -> None:
    heard: list[Any] = []

    def setup(server: Any) -> None:
        server.channel.on("hello", lambda conn, payload: heard.append(payload))
        server.register("add", lambda conn, payload: heard.append(payload))

    # All in one packet: what comes after the wrong frame is not looked at.
    frames = ['["hello",1,null]', '["~wse:hi",{"identity":"ann"},null]', '["add",1,"s1"]']
    with serve(flavour, identify=heard.append, setup=setup) as served:
        for wrong in ('["hello",1,null]', '["add",1,"s1"]', "garbage"):
            with served.peer() as peer:
                packet = [peer.frame(TEXT, frame.encode()) for frame in (wrong, *frames)]
                peer.sock.sendall(b"".join(packet))
                assert peer.wait_closed() == PROTOCOL_ERROR
        served.sockets(0)
        assert not heard
        assert nobody_in(served)


# -- 4. calls, in both directions


def test_4_a_call_to_the_server(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: payload["a"] + payload["b"])
        server.register("nothing", lambda conn, payload: None)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text('["add",{"a":5,"b":3},"Zk3vQ0aPq1"]')
        assert peer.recv() == '["~wse:response",8,"Zk3vQ0aPq1"]'
        peer.send_text('["nothing",null,"Zk3vQ0aPq1"]')  # a stamp may come again once answered
        assert peer.recv() == '["~wse:response",null,"Zk3vQ0aPq1"]'


def test_4_a_call_from_the_server(flavour: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        answer = beside(served.do, served.conn().call, "add", {"a": 5, "b": 3})
        match = re.fullmatch(r'\["add",\{"a":5,"b":3\},"([A-Za-z0-9]{10})"\]', str(peer.recv()))
        assert match
        peer.send_text(f'["~wse:response",8,"{match[1]}"]')
        assert outcome(answer) == 8


def test_4_stamps_are_unique_and_answers_come_in_any_order(flavour: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        conn = served.conn()
        answers = [beside(served.do, conn.call, "echo", n) for n in range(50)]
        asked = [peer.recv_message() for _ in answers]
        # Different all over, not a counter: no two share more than a few leading characters.
        assert len({stamp[:5] for _, _, stamp in asked}) == 50
        for _, payload, stamp in reversed(asked):
            peer.send("~wse:response", payload, stamp)
        assert [outcome(answer) for answer in answers] == list(range(50))


@pytest.mark.parametrize(
    "frame",
    [
        '["~wse:response",8,"unknown"]',
        '["~wse:response-err",{"code":"x"},"unknown"]',
        '["~wse:response-err",null,"unknown"]',
    ],
)
def test_4_an_unknown_answer_is_dropped_in_silence(flavour: str, frame: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text(frame)
        nothing_sent(peer)
        assert served.do(served.server.send, "ann", "still", "open") == 1
        assert peer.recv() == '["still","open",null]'
        assert "error" not in served.names()


def test_4_an_answer_after_its_timeout_is_dropped_in_silence(flavour: str) -> None:
    with serve(flavour, timeout=0.05) as served, served.enter() as peer:
        answer = beside(served.do, served.conn().call, "slow")
        _, _, stamp = peer.recv_message()
        with pytest.raises(TimeoutError):
            outcome(answer)
        peer.send("~wse:response", "late", stamp)
        peer.send("~wse:response-err", {"code": "late"}, stamp)
        nothing_sent(peer)
        assert "error" not in served.names()


def test_4_an_unknown_procedure(flavour: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        peer.send_text('["subtract",{"a":5},"Zk3vQ0aPq1"]')
        assert peer.recv() == (
            '["~wse:response-err",{"code":"wse.server.rp.not-registered"},"Zk3vQ0aPq1"]'
        )
        assert "error" not in served.names()


def test_4_an_unknown_procedure_of_the_peer(flavour: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        answer = beside(served.do, served.conn().call, "subtract")
        _, _, stamp = peer.recv_message()
        peer.send_text(f'["~wse:response-err",{{"code":"wse.server.rp.not-registered"}},"{stamp}"]')
        with pytest.raises(RpcNotRegistered) as caught:
            outcome(answer)
        assert caught.value.rpc == "subtract"
        assert caught.value.code == "wse.server.rp.not-registered"


RAISED = [
    (
        WseError("lab.busy", {"until": 5}),
        '{"code":"lab.busy","details":{"until":5,"rpc":"measure"}}',
    ),
    (WseError("lab.busy", {"rpc": "mine"}), '{"code":"lab.busy","details":{"rpc":"mine"}}'),
    (WseError("lab.busy"), '{"code":"lab.busy","details":{"rpc":"measure"}}'),
    (
        ValueError("boom"),
        '{"code":"wse.server.rp.failed","message":"boom","details":'
        '{"origin":{"name":"ValueError","message":"boom"},"rpc":"measure"}}',
    ),
    (
        RuntimeError(),
        '{"code":"wse.server.rp.failed","message":"Unexpected error","details":'
        '{"origin":{"name":"RuntimeError","message":""},"rpc":"measure"}}',
    ),
]


@pytest.mark.parametrize(("error", "payload"), RAISED)
@pytest.mark.parametrize("coroutine", [False, True])
def test_4_what_a_procedure_raises_is_the_answer(
    flavour: str, error: Exception, payload: str, coroutine: bool
) -> None:
    def measure(conn: Any, payload: Any) -> None:
        raise error

    async def measure_async(conn: Any, payload: Any) -> None:
        raise error

    def setup(server: Any) -> None:
        server.register("measure", measure_async if coroutine else measure)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send("measure", {"card": "secret"}, "s1")
        assert peer.recv() == f'["~wse:response-err",{payload},"s1"]'
        nothing_sent(peer)
        if not isinstance(error, WseError):  # nobody foresaw it
            served.happened("error", "wse.server.rp.failed")
    assert len(served.of("error")) == (not isinstance(error, WseError))


ERROR_ANSWERS = [
    ({"code": "shop.sold-out", "details": {"left": 0}}, "shop.sold-out", {"left": 0}, "sold-out"),
    (
        {
            "code": "wse.server.rp.failed",
            "message": "boom",
            "details": {
                "origin": {"name": "Error", "message": "boom", "stack": "at x"},
                "payload": 1,
            },
        },
        "wse.server.rp.failed",
        {"origin": {"name": "Error", "message": "boom", "stack": "at x"}, "payload": 1},
        "boom",
    ),
    ({"code": "c", "details": None}, "c", {}, "c"),
    ({"code": "c", "details": "text"}, "c", {"details": "text"}, "c"),
    ({"code": "c", "details": [1]}, "c", {"details": [1]}, "c"),
    ({"code": "c", "retry": 5}, "c", {"retry": 5}, "c"),
    ({"code": 7}, "wse.server.rp.failed", {}, ""),
    ({"message": "only text"}, "wse.server.rp.failed", {}, "only text"),
    ({}, "wse.server.rp.failed", {}, ""),
    (None, "wse.server.rp.failed", {}, ""),
    ("text", "wse.server.rp.failed", {"answer": "text"}, ""),
    ([1, 2], "wse.server.rp.failed", {"answer": [1, 2]}, ""),
]


@pytest.mark.parametrize(("payload", "code", "details", "text"), ERROR_ANSWERS)
def test_4_every_form_of_error_answer_reaches_the_caller(
    flavour: str, payload: Any, code: str, details: dict[str, Any], text: str
) -> None:
    with serve(flavour) as served, served.enter() as peer:
        answer = beside(served.do, served.conn().call, "buy")
        _, _, stamp = peer.recv_message()
        peer.send("~wse:response-err", payload, stamp)
        with pytest.raises(RpcFailed) as caught:
            outcome(answer)
        assert caught.value.rpc == "buy"
        assert caught.value.code == code
        assert caught.value.details == details
        assert text in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("boom"), WseError("shop.closed", {"left": 0})])
def test_4_stack_and_payload_only_where_turned_on(flavour: str, error: Exception) -> None:
    def buy(conn: Any, payload: Any) -> None:
        raise error

    for expose in (False, True):
        with serve(
            flavour, expose_errors=expose, setup=lambda server: server.register("buy", buy)
        ) as served:
            with served.enter() as peer:
                peer.send("buy", {"card": 1}, "s1")
                _, payload, _ = peer.recv_message()
            details = payload["details"]
            assert ("payload" in details) is expose
            assert ("stack" in details.get("origin", {})) is expose
            assert ("Traceback" in json.dumps(payload)) is expose
            if expose:
                assert details["payload"] == {"card": 1}
                assert "in buy" in details["origin"]["stack"]


# -- 5. closing


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "wse.by-client"), (4000, "jump"), (1001, "going away"), (1000, "")]
)
def test_5_the_clients_closing_is_told(flavour: str, code: int, reason: str) -> None:
    with serve(flavour) as served:
        served.enter().close(code, reason)
        served.happened("left", "ann", code, reason)
        served.happened("disconnected", "ann", code, reason)


@pytest.mark.parametrize("reason", [None, "the shop is closed", "до зустрічі"])
def test_5_drop_closes_with_its_reason(flavour: str, reason: str | None) -> None:
    args = () if reason is None else (reason,)
    expected = "wse.by-server" if reason is None else reason

    for drop in (
        lambda server: next(iter(server.clients["ann"].conns.values())).drop(*args),
        lambda server: server.clients["ann"].drop(*args),
        lambda server: server.drop_client("ann", *args),
    ):
        with serve(flavour) as served, served.enter() as peer:
            served.do(drop, served.server)
            assert peer.wait_closed() == (1000, expected)
            served.happened("disconnected", "ann", 1000, expected)
            served.happened("left", "ann", 1000, expected)


@pytest.mark.parametrize(
    ("reason", "on_the_wire"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 100, "é" * 61),
        ("x" + "é" * 100, "x" + "é" * 61),
        ("😀" * 40, "😀" * 30),
        ("xx" + "語" * 50, "xx" + "語" * 40),
    ],
)
def test_5_a_long_reason_is_cut_at_a_character(flavour: str, reason: str, on_the_wire: str) -> None:
    with serve(flavour) as served, served.enter() as peer:
        served.do(served.conn().drop, reason)
        assert peer.wait_closed() == (1000, on_the_wire)


def test_5_pending_calls_fail_with_the_connection(flavour: str) -> None:
    def dropped(served: Served, peer: RawPeer) -> tuple[int, str]:
        served.do(served.conn().drop, "enough")
        return 1000, "enough"

    def left(served: Served, peer: RawPeer) -> tuple[int, str]:
        peer.close(1000, "wse.by-client")
        return 1000, "wse.by-client"

    def died(served: Served, peer: RawPeer) -> tuple[int, str]:
        peer.kill()
        return 1006, ""

    for end in (dropped, left, died):
        with serve(flavour) as served, served.enter() as peer:
            answers = [beside(served.do, served.conn().call, "slow", n) for n in range(3)]
            for _ in answers:
                peer.recv()
            code, reason = end(served, peer)
            for answer in answers:
                with pytest.raises(RpcDisconnected) as caught:
                    outcome(answer)
                assert caught.value.code == "wse.client.rp.disconnect"
                assert caught.value.details == {"disconnected": [code, reason]}
                assert caught.value.sent
            served.happened("left", "ann", code, reason)


# -- 6. the older generation


def test_6_an_older_call_is_answered_in_kind(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("add", lambda conn, payload: payload["a"] + payload["b"])
        server.register("nothing", lambda conn, payload: None)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text('["add",{"a":5,"b":3},"~wse:call:add:Zk3vQ0aPq1"]')
        assert peer.recv() == '["~wse:call:add:Zk3vQ0aPq1",8,{"success":true}]'
        peer.send_text('["nothing",null,"~wse:call:nothing:Zk3vQ0aPq1"]')
        assert peer.recv() == '["~wse:call:nothing:Zk3vQ0aPq1",null,{"success":true}]'


def test_6_an_older_call_that_fails(flavour: str) -> None:
    def sold_out(conn: Any, payload: Any) -> None:
        raise WseError("shop.sold-out", {"left": 0})

    def broken(conn: Any, payload: Any) -> None:
        raise ValueError("boom")

    def setup(server: Any) -> None:
        server.register("sold_out", sold_out)
        server.register("broken", broken)
        server.register("unpackable", lambda conn, payload: object())

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text('["add",{"a":5,"b":3},"~wse:call:add:Zk3vQ0aPq1"]')
        assert peer.recv() == (
            '["~wse:call:add:Zk3vQ0aPq1",null,{"code":"wse.server.rp.not-registered"}]'
        )
        peer.send_text('["sold_out",null,"~wse:call:sold_out:1"]')
        assert peer.recv() == (
            '["~wse:call:sold_out:1",null,'
            '{"code":"shop.sold-out","details":{"left":0,"rpc":"sold_out"}}]'
        )
        peer.send_text('["broken",null,"~wse:call:broken:1"]')
        assert peer.recv() == (
            '["~wse:call:broken:1",null,{"code":"wse.server.rp.failed","message":"boom","details":'
            '{"origin":{"name":"ValueError","message":"boom"},"rpc":"broken"}}]'
        )
        peer.send_text('["unpackable",null,"~wse:call:unpackable:1"]')
        type, payload, error = peer.recv_message()
        assert (type, payload) == ("~wse:call:unpackable:1", None)
        assert error["code"] == "wse.server.rp.failed"


def test_6_both_generations_on_one_connection(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("double", lambda conn, payload: payload * 2)

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send_text('["double",1,"~wse:call:double:a"]')
        peer.send_text('["double",2,"b"]')
        # A stamp of the current generation may hold the marker anywhere but at its beginning.
        peer.send_text('["double",3,"c~wse:call:"]')
        assert sorted(str(peer.recv()) for _ in range(3)) == [
            '["~wse:call:double:a",2,{"success":true}]',
            '["~wse:response",4,"b"]',
            '["~wse:response",6,"c~wse:call:"]',
        ]
