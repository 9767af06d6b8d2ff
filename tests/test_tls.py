"""TLS in every pairing of flavours: a private CA, verification by default, client certificates."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    ConnectionFailed,
    LoopThread,
    WseClient,
    WseServer,
)
from wse_tornado.blocking.loop import Deadline

from .support import seconds


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
    if flavour == "blocking":
        with WseServer(identify=identify, ssl_options=tls) as server:
            server.register("add", lambda conn, payload: sum(payload))
            assert server.url.startswith("wss://localhost:")
            yield server.url
        return
    core = AsyncWseServer(identify=identify)
    core.register("add", lambda conn, payload: sum(payload))
    with LoopThread("wse-tornado-tls") as loop:

        async def listen() -> int:
            return core.listen(0, ssl_options=tls)

        port = loop.run(listen, Deadline(seconds(10)), "listen")
        try:
            yield f"wss://localhost:{port}"
        finally:
            loop.run(core.stop, Deadline(seconds(10)), "stop")


def call_add(kind: str, url: str, **options: Any) -> Any:
    """Connect a client of a flavour, call ``add`` and close."""
    if kind == "blocking":
        with WseClient(url, **options) as client:
            client.connect("me", timeout=seconds(10))
            return client.call("add", [5, 3])

    async def main() -> Any:
        async with AsyncWseClient(url, **options) as client:
            await client.connect("me", timeout=seconds(10))
            return await client.call("add", [5, 3])

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_a_private_ca_is_trusted_where_it_is_named(
    flavour: str, kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        assert call_add(kind, url, ssl_options=client_tls) == 8


@pytest.mark.parametrize("kind", ["blocking", "async"])
@pytest.mark.parametrize("reconnect", [False, True])
def test_certificates_are_verified_by_default(
    flavour: str, kind: str, reconnect: bool, server_tls: ssl.SSLContext
) -> None:
    """And coming back does not make a wrong certificate right: it is final at once."""
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            call_add(kind, url, reconnect=reconnect)


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_a_certificate_for_another_name_is_refused(
    flavour: str, kind: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with listening(flavour, lambda auth: auth.identity, server_tls) as url:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            call_add(kind, url.replace("localhost", "127.0.0.1"), ssl_options=client_tls)


@pytest.mark.parametrize("kind", ["blocking", "async"])
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


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_without_the_client_certificate_nobody_gets_in(
    flavour: str, kind: str, demanding_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asked: list[Any] = []
    with listening(flavour, lambda auth: asked.append(auth), demanding_tls) as url:
        with pytest.raises(ConnectionFailed):
            call_add(kind, url, ssl_options=client_tls)
    assert asked == []


def test_without_tls_there_is_no_certificate(flavour: str) -> None:
    from .support import serve

    seen: list[Any] = []

    def identify(auth: Any) -> str:
        seen.append(auth.certificate)
        return "me"

    with serve(flavour, identify=identify) as served, served.peer() as peer:
        peer.hi("me")
        peer.recv()
    assert seen == [None]
