"""MsgpackProtocol: over real sockets in both flavours, and what MessagePack cannot hold."""

import datetime as dt
import math
import subprocess
import sys

import pytest

from wse_tornado import NotSerializable, ProtocolError, RpcFailed, WseClient

from .conftest import require
from .support import Closed, serve

try:
    import msgpack

    from wse_tornado.msgpack import MsgpackProtocol
except ImportError:
    msgpack = None

NOON = dt.datetime(2026, 1, 1, 12, 0, tzinfo=dt.timezone.utc)
PAYLOADS = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    0.1,
    math.inf,
    "",
    "Привіт 🐍",
    b"\x00\xff",
    NOON,
    [1, [2, [3]]],
    {"a": {"b": [b"c", None]}, b"bytes": 1},
]


@pytest.fixture(autouse=True)
def msgpack_is_here() -> None:
    require(msgpack is not None, "msgpack")


def echo(server):
    server.register("echo", lambda conn, payload: payload)
    server.channel.on("echo", lambda conn, payload: conn.send("echo", payload) and None)


# -- both ends are ours


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_a_payload_survives_a_call(payload):
    protocol = MsgpackProtocol()
    assert protocol.unpack(protocol.pack("add", payload, "x")) == ("add", payload, "x")


def test_payloads_survive_send_and_call_in_both_directions(flavour):
    with (
        serve(flavour, setup=echo, protocol=MsgpackProtocol()) as served,
        WseClient(served.url, protocol=MsgpackProtocol()) as client,
    ):
        client.register("echo", lambda payload: payload)
        assert client.connect("alice", {"when": NOON}) == {"message": "Welcome!"}
        (conn,) = served.server.clients["alice"].conns.values()
        assert conn.meta == {"when": NOON}
        for payload in PAYLOADS:
            assert client.call("echo", payload) == payload
            assert served.do(conn.call, "echo", payload) == payload
            client.send("echo", payload)
            assert client.wait_for("echo", timeout=30) == payload
            assert served.do(served.server.broadcast, "news", payload) == 1
            assert client.wait_for("news", timeout=30) == payload
        assert math.isnan(client.call("echo", math.nan))
        assert client.call("echo", (1, 2)) == [1, 2], "tuples arrive as lists"


# -- a peer that is not ours


def test_every_message_is_one_binary_frame_of_the_wires_array(flavour):
    with (
        serve(flavour, setup=echo, protocol=MsgpackProtocol()) as served,
        served.peer(protocols="wse-msgpack") as peer,
    ):
        assert peer.response_headers["sec-websocket-protocol"] == "wse-msgpack"
        peer.send_bytes(msgpack.packb(["~wse:hi", {"identity": "alice"}]))
        welcome = ["~wse:welcome", {"message": "Welcome!"}, None]
        assert peer.recv() == msgpack.packb(welcome)
        peer.send_bytes(msgpack.packb(["echo", {"raw": b"\x00\xff"}, "stamp"]))
        assert peer.recv() == msgpack.packb(["~wse:response", {"raw": b"\x00\xff"}, "stamp"])
        peer.send_bytes(msgpack.packb(["echo", "four elements", "stamp", 4]))
        assert peer.recv() == msgpack.packb(["~wse:response", "four elements", "stamp"])
        peer.send_bytes(msgpack.packb(["echo"]))
        assert peer.recv() == msgpack.packb(["echo", None, None])


MALFORMED = {
    "empty": b"",
    "not MessagePack": b"\xc1",
    "cut short": b"\x93\xa4echo",
    "bytes after the end": b"\x91\xa4echo\x00",
    "no array": b"\x81\xa4echo\x01",
    "an empty array": b"\x90",
    "a number as type": b"\x91\x05",
    "true as type": b"\x91\xc3",
    "number keys": b"\x92\xa4echo\x81\x01\x02",
    "text that is not UTF-8": b"\x92\xa4echo\xa1\xff",
    "a length that lies": b"\xdd\xff\xff\xff\xff",
    "nested too deeply": b"\x91" * 5000 + b"\x90",
    "a date after the last": b"\x92\xa4echo\xc7\x0c\xff" + b"\x00" * 4 + b"\x0f" * 8,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_closes_with_protocol_error(data):
    with (
        serve("blocking", protocol=MsgpackProtocol()) as served,
        served.peer(protocols="wse-msgpack") as peer,
    ):
        peer.send_bytes(data)
        assert peer.wait_closed() == (1000, "wse.protocol-error")
        assert served.events == [("error", "wse.server.msg-processing-error")]


def test_a_text_frame_closes_with_protocol_error(flavour):
    with (
        serve(flavour, setup=echo, protocol=MsgpackProtocol()) as served,
        served.peer(protocols="wse-msgpack") as peer,
    ):
        peer.hi("alice")
        with pytest.raises(Closed, match=r"wse\.protocol-error"):
            peer.recv()


def test_a_client_of_the_default_protocol_is_told_so(flavour):
    with (
        serve(flavour, protocol=MsgpackProtocol()) as served,
        WseClient(served.url) as client,
        pytest.raises(ProtocolError, match="wse-default-json"),
    ):
        client.connect("alice")


# -- what cannot be packed


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


UNPACKABLE = {
    "an object": object(),
    "a set": {1},
    "65 bits": 2**64,
    "number keys": {"inner": {1: "one"}},
    "tuple keys": {(1, 2): "pair"},
    "a lone surrogate": "\ud800",
    "a date without time zone": dt.datetime(2026, 1, 1),
    "nested too deeply": nested(5000),
    "as deep as it goes": nested(1023),
}


@pytest.mark.parametrize("payload", UNPACKABLE.values(), ids=UNPACKABLE)
def test_what_cannot_be_packed_raises_in_the_caller_and_leaves_the_connection_alone(payload):
    with (
        serve("blocking", setup=echo, protocol=MsgpackProtocol()) as served,
        WseClient(served.url, protocol=MsgpackProtocol()) as client,
    ):
        client.connect("alice")
        with pytest.raises(NotSerializable, match="wse-msgpack"):
            client.send("echo", payload)
        with pytest.raises(NotSerializable):
            client.call("echo", payload)
        with pytest.raises(NotSerializable):
            served.server.broadcast("news", payload)
        assert client.call("echo", "still here") == "still here"


def test_a_type_that_is_no_string_raises_in_the_caller():
    with pytest.raises(TypeError, match="a string"):
        MsgpackProtocol().pack(5, None)


def test_a_result_that_cannot_be_packed_fails_the_call_only(flavour):
    def setup(server):
        echo(server)
        server.register("squares", lambda conn, payload: {n: n * n for n in range(3)})

    with (
        serve(flavour, setup=setup, protocol=MsgpackProtocol()) as served,
        WseClient(served.url, protocol=MsgpackProtocol()) as client,
    ):
        client.connect("alice")
        with pytest.raises(RpcFailed, match="map key"):
            client.call("squares")
        assert client.call("echo", "still here") == "still here"


# -- the extra


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_without_the_library_the_import_names_the_extra():
    done = run("import sys; sys.modules['msgpack'] = None; import wse_tornado.msgpack")
    assert "ImportError: wse_tornado.msgpack needs the msgpack library" in done.stderr
    assert "pip install 'wse-tornado[msgpack]'" in done.stderr


def test_importing_the_package_does_not_import_msgpack():
    done = run("import sys, wse_tornado; assert 'msgpack' not in sys.modules, 'imported'")
    assert done.returncode == 0, done.stderr
