"""RFC 6455 over real sockets, on every pipe and in both directions."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from wse_tornado import Limits, RpcDisconnected, WseClient
from wse_tornado.transport.pipes import TcpPipe, TlsPipe

from ..support import Closed, RawPeer, RawServer, Served, seconds, serve, wait_until
from ..support.peer import BINARY, CLOSE, PING, PONG, TEXT
from ..support.pipes import WAYS, On

HELLO = b'["echo","hello",null]'


@pytest.fixture(params=WAYS, ids=str)
def on(request: pytest.FixtureRequest) -> On:
    way = request.param
    assert isinstance(way, On)
    return way


@contextlib.contextmanager
def echo_server(on: On, **options: object) -> Iterator[Served]:
    def setup(server):
        server.channel.on("echo", lambda conn, payload: conn.send("echo", payload))

    with serve("async", setup=setup, **on.served, **options) as served:
        yield served


def get_in(served: Served, on: On) -> RawPeer:
    peer = served.peer(**on.peer)
    peer.hi("user")
    peer.recv()
    return peer


def test_the_pipe_is_the_direct_one(on: On) -> None:
    with echo_server(on) as served, get_in(served, on):
        (conn,) = served.hub.users.devices.values()
        assert type(conn._transport._pipe) is (TlsPipe if on.tls else TcpPipe)


def test_a_fragmented_message_with_a_ping_inside(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(TEXT, HELLO[:5], fin=False)
        peer.send_frame(PING, b"are you there")
        peer.send_frame(0, HELLO[5:9], fin=False)
        peer.send_frame(0, HELLO[9:])
        assert peer.recv_frame() == (PONG, b"are you there")
        assert peer.recv() == HELLO.decode()


def test_one_byte_at_a_time(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in peer.frame(TEXT, HELLO):
            peer.sock.sendall(bytes([byte]))
        assert peer.recv() == HELLO.decode()


def test_many_messages_in_one_packet(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.sock.sendall(
            b"".join(peer.frame(TEXT, json.dumps(["echo", i, None]).encode()) for i in range(500))
        )
        assert [peer.recv_message()[1] for _ in range(500)] == list(range(500))


@pytest.mark.parametrize("size", [100, 125, 126, 65535, 65536, 300_000])
def test_messages_of_every_length_form(on: On, size: int) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        text = json.dumps(["echo", "x" * size, None], separators=(",", ":"))
        peer.send_text(text)
        assert peer.recv() == text


def test_frames_that_come_with_the_request_are_not_lost(on: On) -> None:
    with echo_server(on) as served:
        masked = RawPeer(socket.socket(), masks=True)
        early = masked.frame(TEXT, b'["~wse:hi",{"identity":"early"},null]')
        masked.sock.close()
        with served.peer(early=early, **on.peer) as peer:
            assert peer.recv_message()[0] == "~wse:welcome"


def test_text_may_not_be_other_than_utf8(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(TEXT, b'["echo","\xff\xfe",null]')
        code, _ = peer.wait_closed()
        assert code == 1007
        wait_until(lambda: not served.server.clients)


@pytest.mark.parametrize("rsv", [0x40, 0x20, 0x10])
def test_reserved_bits_end_the_connection(on: On, rsv: int) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(TEXT, HELLO, rsv=rsv)
        code, _ = peer.wait_closed()
        # The first of them means that the message is compressed, which it is not.
        assert code == (1007 if on.deflate and rsv == 0x40 else 1002)


def test_an_unmasked_frame_of_a_client_ends_the_connection(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.masks = False
        peer.send_frame(TEXT, HELLO)
        assert peer.sock.recv(4)[2:] == struct.pack("!H", 1002)


def test_a_message_above_the_bound_ends_with_1009(on: On) -> None:
    with echo_server(on, limits=Limits(max_message_size=1000)) as served:
        with get_in(served, on) as peer:
            at_bound = json.dumps(["echo", "x" * 1000])[:10] + "x" * 986 + '"]' + "  "
            assert len(at_bound) == 1000
            peer.send_text(at_bound)
            assert len(peer.recv_message()[1]) == 986
        with get_in(served, on) as peer:
            with contextlib.suppress(OSError):
                peer.send_text('["echo","' + "x" * 2000 + '"]')
            code, _ = peer.wait_closed()
            assert code == 1009


def test_the_close_handshake_is_answered_with_the_same_code(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(CLOSE, struct.pack("!H", 4321) + b"enough")
        opcode, payload = peer.recv_frame()
        assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", 4321))
        assert peer.sock.recv(1) == b""
        wait_until(lambda: ("disconnected", "user", 4321, "enough") in served.events)


def test_a_close_frame_without_a_code(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(CLOSE)
        assert peer.recv_frame()[0] == CLOSE
        wait_until(lambda: "disconnected" in served.names())
        (event,) = [e for e in served.events if e[0] == "disconnected"]
        assert event[2] == 1005


def test_a_peer_that_vanishes_is_1006(on: On) -> None:
    with echo_server(on) as served:
        get_in(served, on).kill()
        wait_until(lambda: ("disconnected", "user", 1006, "") in served.events)
        with get_in(served, on) as peer:
            socket.socket.shutdown(peer.sock, socket.SHUT_WR)  # under the TLS layer
            assert peer.wait_closed() == (1006, "")


def test_a_peer_that_does_not_answer_the_close_frame_is_cut(on: On) -> None:
    with echo_server(on, limits=Limits(close_timeout=0.1)) as served:
        with get_in(served, on) as peer:
            served.do(served.server.drop_client, "user", "go")
            opcode, payload = peer.recv_frame()
            assert (opcode, payload) == (CLOSE, struct.pack("!H", 1000) + b"go")
            peer.sock.settimeout(seconds(5))
            try:
                assert peer.sock.recv(1) == b""
            except ConnectionResetError:
                pass


def test_messages_after_our_close_frame_reach_nobody(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        served.server.channel.on("late", lambda conn, payload: served.events.append(("late",)))
        served.do(served.server.drop_client, "user")
        for _ in range(5):
            peer.send("late", None, None)
        assert peer.wait_closed() == (1000, "wse.by-server")
        assert "late" not in served.names()


def test_messages_before_the_peers_close_frame_are_all_handled(on: On) -> None:
    with echo_server(on, limits=Limits(max_queue=5)) as served, get_in(served, on) as peer:
        got = []
        served.server.channel.on("count", lambda conn, payload: got.append(payload))
        stream = [peer.frame(TEXT, json.dumps(["count", i]).encode()) for i in range(300)]
        peer.sock.sendall(b"".join(stream) + peer.frame(CLOSE, struct.pack("!H", 1000)))
        assert peer.wait_closed()[0] == 1000
        assert got == list(range(300))


def test_binary_frames_carry_utf8_json(on: On) -> None:
    with echo_server(on) as served, get_in(served, on) as peer:
        peer.send_frame(BINARY, HELLO)
        assert peer.recv() == HELLO.decode()


# -- the client's side


def welcome(peer: RawPeer) -> None:
    peer.recv()
    peer.send("~wse:welcome", None, None)


def test_a_client_masks_every_frame_with_a_fresh_key(on: On) -> None:
    keys = []

    def script(peer: RawPeer) -> None:
        for _ in range(3):
            head = peer._exactly(2)
            assert head[1] & 0x80
            keys.append(peer._exactly(4))
            peer._exactly(head[1] & 0x7F)
            if len(keys) == 1:
                peer.send("~wse:welcome", None, None)
        peer.close()

    with RawServer(script, **on.raw_server) as server, WseClient(server.url, **on.client) as client:
        client.connect("me")
        client.send("one", 1)
        client.send("two", 2)
        client.wait(timeout=seconds(5))
    assert len(set(keys)) == 3


def test_a_client_refuses_masked_frames() -> None:
    def script(peer: RawPeer) -> None:
        welcome(peer)
        peer.masks = True
        peer.send("hello", 1, None)
        peer.masks = False
        with pytest.raises(Closed) as caught:
            peer.recv()
        assert caught.value.code == 1002

    with RawServer(script) as server, WseClient(server.url) as client:
        client.connect("me")
        assert client.wait(timeout=seconds(5))


def test_a_client_reads_fragments_and_answers_pings(on: On) -> None:
    def script(peer: RawPeer) -> None:
        welcome(peer)
        peer.send_frame(TEXT, b'["news",', fin=False)
        peer.send_frame(PING, b"x")
        peer.send_frame(0, b'"fragmented"]')
        assert peer.recv_frame() == (PONG, b"x")
        peer.wait_closed()

    with RawServer(script, **on.raw_server) as server, WseClient(server.url, **on.client) as client:
        client.connect("me")
        assert client.wait_for("news", timeout=seconds(5)) == "fragmented"


def test_a_close_frame_right_after_the_handshake_is_understood(on: On) -> None:
    from wse_tornado import ConnectionFailed

    def script(peer: RawPeer) -> None:
        peer.close(1013, "later")

    with RawServer(script, **on.raw_server) as server, WseClient(server.url, **on.client) as client:
        with pytest.raises(ConnectionFailed, match="1013 later"):
            client.connect("me")


def test_large_messages_from_many_threads_do_not_mix() -> None:
    """Calls that write from their own threads, partly, into a socket that is often full."""

    def setup(server):
        server.register("size", lambda conn, payload: [payload[0], len(payload)])

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("me")
        failures = []

        def work(letter: str) -> None:
            try:
                for i in range(30):
                    size = 1 + (i * 7919) % 400_000
                    client.send("noise", letter)
                    assert client.call("size", letter * size) == [letter, size]
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


def test_a_message_sent_before_a_call_arrives_before_it() -> None:
    order = []

    def setup(server):
        server.channel.on("note", lambda conn, payload: order.append(payload), inline=True)
        server.register("mark", lambda conn, payload: order.append(payload), inline=True)

    with serve("blocking", setup=setup) as served, WseClient(served.url) as client:
        client.connect("me")
        for i in range(0, 600, 3):
            client.send("note", i)
            client.send("note", i + 1)
            client.call("mark", i + 2)
    assert order == list(range(600))


def test_a_call_at_the_very_end_of_a_connection_never_waits_in_vain() -> None:
    """Threads call while the server drops the connection: each ends at once with an error."""

    def setup(server):
        server.register("echo", lambda conn, payload: payload, inline=True)

    with serve("blocking", setup=setup) as served:
        for _ in range(10):
            with WseClient(served.url, timeout=seconds(20)) as client:
                client.connect("me")
                ended = []

                def work(client: WseClient = client, ended: list = ended) -> None:
                    try:
                        while True:
                            client.call("echo", 1)
                    except (RpcDisconnected, ConnectionError) as exc:
                        ended.append(exc)

                threads = [threading.Thread(target=work) for _ in range(6)]
                for thread in threads:
                    thread.start()
                served.server.drop_client("me")
                for thread in threads:
                    thread.join(seconds(5))
                    assert not thread.is_alive()
                assert len(ended) == 6
