"""MessagePack over real sockets."""

import datetime as dt
import math

import pytest

from wse_tornado import ProtocolError, RpcFailed, WseClient

from ..support import Closed, require, serve

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
