"""TLS in every pairing of flavours: a private CA, verification by default, client certificates."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from tornado.httpserver import HTTPServer
from tornado.web import Application

from wse_tornado import (
    ConnectionFailed,
)

from ..support import QUICK, Served, beside, outcome, seconds, serve, use, wait_until


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def demanding_tls(ca: trustme.CA) -> ssl.SSLContext:
    """A server that lets nobody in without a certificate of the private CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def client_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@contextmanager
def listening(flavour: str, identify: Callable[..., Any], tls: ssl.SSLContext) -> Iterator[str]:
    """A server of a flavour; its URL."""
    with serve(flavour, identify=identify, ssl_options=tls) as served:
        served.server.register("add", lambda conn, payload: sum(payload))
        yield f"wss://localhost:{served.port}"


def call_add(kind: str, url: str, **options: Any) -> Any:
    """Connect a client of a flavour, call ``add`` and close."""
    with use(kind, url, timeout=seconds(10), **options) as used:
        used.connect("me")
        return used.call("add", [5, 3])


def test_a_private_ca_is_trusted_where_it_is_named(
    flavour: str, kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        assert call_add(kind, url, ssl_options=client_tls) == 8


@pytest.mark.parametrize("reconnect", [False, True])
def test_certificates_are_verified_by_default(
    flavour: str, kind: str, reconnect: bool, server_tls: ssl.SSLContext
) -> None:
    """And coming back does not make a wrong certificate right: it is final at once."""
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            call_add(kind, url, reconnect=reconnect)


def test_a_certificate_for_another_name_is_refused(
    flavour: str, kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            call_add(kind, url.replace("localhost", "127.0.0.1"), ssl_options=client_tls)


def test_a_client_certificate_reaches_identify(
    flavour: str,
    kind: str,
    ca: trustme.CA,
    demanding_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
) -> None:
    seen: list[Any] = []

    def identify(auth: Any) -> Any:
        seen.append(auth.certificate)
        names = [value for kind, value in auth.certificate["subjectAltName"] if kind == "email"]
        return names[0]

    ca.issue_cert("ann@example.com").configure_cert(client_tls)
    with listening(flavour, identify, demanding_tls) as url:
        assert call_add(kind, url, ssl_options=client_tls) == 8
        assert ("email", "ann@example.com") in seen[0]["subjectAltName"]


def test_without_the_client_certificate_nobody_gets_in(
    flavour: str, kind: str, demanding_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asked: list[Any] = []
    with listening(flavour, lambda auth: asked.append(auth), demanding_tls) as url:
        with pytest.raises(ConnectionFailed):
            call_add(kind, url, ssl_options=client_tls)
    assert asked == []


def test_without_tls_there_is_no_certificate(flavour: str) -> None:
    seen: list[Any] = []

    def identify(auth: Any) -> str:
        seen.append(auth.certificate)
        return "me"

    with serve(flavour, identify=identify) as served, served.peer() as peer:
        peer.hi("me")
        peer.recv()
    assert seen == [None]


def test_large_calls_both_ways_and_coming_back(
    flavour: str, kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with serve(flavour, identify=lambda auth: "me", ssl_options=server_tls) as served:
        url = f"wss://localhost:{served.port}"
        with use(kind, url, ssl_options=client_tls, reconnect=QUICK) as used:
            served.server.register("echo", lambda conn, payload: payload)
            used.client.register("echo", lambda payload: payload)
            used.connect()
            text = "x" * 200_000
            assert used.call("echo", text) == text
            assert served.call("me", "echo", text) == text
            assert served.do(served.server.broadcast, "m", text) == 1
            assert used.receive() == ("m", text)
            close_with_1012(served)
            wait_until(lambda: len(used.of("ready")) == 2)
            served.do(served.conn("me").drop, "over TLS")
            used.happened("closed", 1000, "over TLS")


def close_with_1012(served: Served) -> None:
    """End its connections with a code on which clients come back."""
    loop = getattr(served.server, "_loop", None)
    conns = list(served.hub.users.devices.values())
    closing = lambda: [conn.close(1012, "") for conn in conns]  # noqa: E731
    loop.post(closing) if loop else served.do(closing)


def test_a_port_without_tls_fails_clearly(kind: str, client_tls: ssl.SSLContext) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(10)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.close()

    with socket.create_server(("127.0.0.1", 0)) as plain:
        answering = beside(lambda: script(plain.accept()[0]))
        url = f"wss://127.0.0.1:{plain.getsockname()[1]}"
        with pytest.raises(ConnectionFailed, match="cannot reach wss://") as error:
            call_add(kind, url, ssl_options=client_tls)
        assert "\n" not in str(error.value)
        outcome(answering)


def test_an_https_server_of_ones_own_carries_it(
    kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with serve("async") as served:
        served.server.register("add", lambda conn, payload: sum(payload))

        def mount() -> tuple[HTTPServer, int]:
            http = HTTPServer(Application(served.server.routes("/ws")), ssl_options=server_tls)
            http.listen(0, "127.0.0.1")
            return http, next(iter(http._sockets.values())).getsockname()[1]

        http, port = served.do(mount)
        assert call_add(kind, f"wss://localhost:{port}/ws", ssl_options=client_tls) == 8
        served.do(http.stop)
        served.do(http.close_all_connections)
