"""What an unauthenticated peer can cost, and what a hanging admission leaves behind."""

import asyncio
import json
import logging
import socket
import threading
from typing import Any

import pytest

from wse_tornado import ErrorCode, Limits, RpcNotRegistered, WseClient, WseServer

from ..support import seconds, serve, wait_until
from ..support.peer import TEXT

AUTH_TIMEOUT = seconds(0.3)


def test_a_hanging_identify_is_reported_at_the_timeout(flavour: str) -> None:
    """The report does not queue behind the handler that it is about."""
    release = threading.Event()

    async def hang(auth: Any) -> None:
        await asyncio.sleep(3600)

    def block(auth: Any) -> None:
        release.wait(seconds(20))

    identify = block if flavour == "blocking" else hang
    with serve(flavour, identify=identify, limits=Limits(auth_timeout=AUTH_TIMEOUT)) as served:
        try:
            with served.peer() as peer:
                peer.hi("ann")
                assert peer.wait_closed() == (1013, "wse.auth-timeout")
                served.happened("error", ErrorCode.AUTH_TIMEOUT)
        finally:
            release.set()


@pytest.mark.parametrize("ends", ["time-out", "hang-up", "stop"])
def test_a_hanging_identify_coroutine_is_cancelled(flavour: str, ends: str) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def hang(auth: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    timeout = AUTH_TIMEOUT if ends == "time-out" else seconds(60)
    with serve(flavour, identify=hang, limits=Limits(auth_timeout=timeout)) as served:
        with served.peer() as peer:
            peer.hi("ann")
            assert begun.wait(seconds(5))
            if ends == "time-out":
                assert peer.wait_closed() == (1013, "wse.auth-timeout")
            elif ends == "hang-up":
                peer.kill()
            else:
                stopping = threading.Thread(target=served.do, args=(served.server.stop,))
                stopping.start()
                peer.wait_closed()
                stopping.join(seconds(10))
            assert cancelled.wait(seconds(5))


@pytest.mark.parametrize("split", [False, True], ids=["one-message", "many"])
def test_what_comes_before_the_admission_is_bounded_by_max_hello_size(
    flavour: str, split: bool
) -> None:
    asked = []
    limits = Limits(max_hello_size=2000)
    with serve(flavour, identify=asked.append, limits=limits) as served:
        with served.peer() as peer:
            if split:
                peer.hi("ann")
                wait_until(lambda: asked)
                for _ in range(30):
                    peer.send_frame(TEXT, b'["x","' + b"y" * 80 + b'"]')
            else:
                hello = json.dumps(["~wse:hi", {"identity": "x" * 2000, "meta": {}}])
                peer.send_frame(TEXT, hello.encode())
            assert peer.wait_closed() == (1009, "message too big")
        assert bool(asked) is split


def test_after_the_admission_max_message_size_counts(flavour: str) -> None:
    def setup(server: Any) -> None:
        server.register("size", lambda conn, payload: len(payload))

    with serve(flavour, setup=setup, limits=Limits(max_hello_size=2000)) as served:
        with served.enter() as peer:
            peer.send("size", "x" * 100_000, "s")
            assert peer.recv_message() == ["~wse:response", 100_000, "s"]


@pytest.mark.parametrize("size", [2 * 1024 * 1024, 100_000_000])
def test_a_large_request_body_is_refused(flavour: str, size: int) -> None:
    with serve(flavour) as served:
        with socket.create_connection(("127.0.0.1", served.port), seconds(5)) as sock:
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            sock.sendall(head.encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 400")


def test_large_request_headers_are_refused(flavour: str) -> None:
    with serve(flavour) as served:
        with socket.create_connection(("127.0.0.1", served.port), seconds(5)) as sock:
            sock.settimeout(seconds(5))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000)
            assert sock.recv(100) == b""


def test_a_peers_reason_cannot_forge_a_line_in_a_repr(flavour: str) -> None:
    seen: list[str] = []

    def setup(server: Any) -> None:
        server.when.disconnected(lambda conn, code, reason: seen.append(repr(conn)))

    with serve(flavour, setup=setup) as served:
        with served.enter() as peer:
            peer.close(4000, "bye\n\x1b[31mforged")
        wait_until(lambda: seen)
        assert seen[0].isprintable()
        assert "bye\\n\\x1b[31mforged" in seen[0]


def test_who_comes_and_goes_is_logged(flavour: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "wse_tornado.server")
    with serve(flavour) as served:
        with served.peer() as nobody:
            nobody.hi("nobody", {"secret": "hidden-token"})
            nobody.wait_closed()
        with served.enter("ann") as first:
            first.send("nonsense", "hidden-payload")
            first.send("nothing", None, "s")
            first.recv_message()
            with served.enter("ann"):
                assert first.wait_closed()[1] == "wse.clients-concurrency"
        served.happened("left", "ann")
    records = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "wse_tornado.server"
    ]

    def said(level: str, *words: str) -> bool:
        return any(lev == level and all(w in text for w in words) for lev, text in records)

    assert said("INFO", "refused", "127.0.0.1", "wse.not-authorized"), records
    assert said("INFO", "joined", "127.0.0.1", "'ann'"), records
    assert said("INFO", "pushed out", "127.0.0.1", "wse.clients-concurrency"), records
    assert said("INFO", "left", "127.0.0.1", "'ann'"), records
    assert said("DEBUG", "unknown type", "'nonsense'"), records
    assert said("DEBUG", "unknown procedure", "'nothing'"), records
    assert "hidden" not in str(records)


def test_a_message_too_large_is_logged(flavour: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "wse_tornado.server")
    with serve(flavour, limits=Limits(max_message_size=1000)) as served:
        with served.enter() as peer:
            peer.send("x", "y" * 2000)
            assert peer.wait_closed()[0] == 1009
        served.happened("left", "ann")
    assert any("1009" in record.getMessage() for record in caplog.records)


def test_a_nested_unregistered_procedure_is_an_error_of_the_outer_one(flavour: str) -> None:
    told: list[Any] = []

    def setup(server: Any) -> None:
        server.when.error(lambda error, conn: told.append(error))

        @server.register("outer")
        def outer(conn: Any, payload: Any) -> None:
            raise RpcNotRegistered("inner", ErrorCode.RP_NOT_REGISTERED, {})

    with serve(flavour, setup=setup) as served, served.enter() as peer:
        peer.send("outer", None, "s")
        assert peer.recv_message()[1]["code"] == ErrorCode.RP_EXECUTION_FAILED.value
        wait_until(lambda: told)
        assert told[0].code == ErrorCode.RP_EXECUTION_FAILED
        assert "'outer'" in str(told[0])


def test_faces_show_what_they_were_made_with(flavour: str) -> None:
    with serve(flavour, conn_per_user=2, timeout=7) as served:
        server = served.server
        assert (server.conn_per_user, server.timeout) == (2, 7.0)
        assert server.protocol.name == "wse-default-json"
        with served.enter(meta={"device": "old"}), served.enter(meta={"device": "new"}):
            conn, user = served.conn(), server.clients["ann"]
            assert user.meta == {"device": "new"}
            assert conn.ready_state == 1
        served.happened("left", "ann")
        assert conn.ready_state in (2, 3)
        assert user.meta == {"device": "new"} or user.meta == {"device": "old"}


def test_in_disconnected_the_device_and_its_user_are_gone(flavour: str) -> None:
    seen: list[Any] = []

    def setup(server: Any) -> None:
        @server.when.disconnected
        def disconnected(conn: Any, code: int, reason: str) -> None:
            seen.append((conn.conn_id in conn.client.conns, conn.cid in server.clients))

    with serve(flavour, setup=setup) as served:
        with served.enter():
            pass
        wait_until(lambda: seen)
        assert seen == [(False, False)]


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "", None])
def test_the_url_of_a_wildcard_host_answers(host: Any) -> None:
    if host == "::" and not socket.has_ipv6:
        pytest.skip("this system has no IPv6")
    with WseServer(identify=lambda auth: "ann", host=host) as server:
        with WseClient(server.url, timeout=seconds(5)) as client:
            client.connect("ann")
            assert list(server.clients) == ["ann"]
