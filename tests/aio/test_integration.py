"""Into existing servers: applications, cookies, TLS, origins, proxies, compression."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tornado.web
import trustme
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    Backoff,
    ConnectionFailed,
    NotAuthorized,
    Status,
    WseClient,
    WseServer,
)

from ..support import RawPeer, seconds
from ..support.servers import accept_all
from .conftest import record_client, record_server


class Page(tornado.web.RequestHandler):
    """An ordinary page beside the WebSockets; signs its visitor in."""

    def get(self) -> None:
        self.set_signed_cookie("user", "alice")
        self.write("a page")


@asynccontextmanager
async def serving(
    handlers: list[Any], *, ssl_options: Any = None, xheaders: bool = False, **settings: Any
) -> AsyncIterator[int]:
    """An application on a free port of 127.0.0.1."""
    application = tornado.web.Application(
        handlers, cookie_secret="secret", log_function=lambda handler: None, **settings
    )
    http = HTTPServer(application, ssl_options=ssl_options, xheaders=xheaders)
    (sock,) = bind_sockets(0, "127.0.0.1")
    http.add_socket(sock)
    try:
        yield sock.getsockname()[1]
    finally:
        http.stop()
        await http.close_all_connections()


@asynccontextmanager
async def client_at(url: str, identity: Any = "alice", **options: Any) -> AsyncIterator[Any]:
    options.setdefault("timeout", seconds(10))
    async with AsyncWseClient(url, **options) as client:
        await client.connect(identity)
        yield client


# -- one application


async def test_several_servers_share_an_application_with_pages() -> None:
    chat, news = AsyncWseServer(identify=accept_all), AsyncWseServer(identify=accept_all)
    handlers = [(r"/", Page), *chat.routes(r"/chat"), *news.routes(r"/news")]
    async with serving(handlers) as port:
        async with (
            client_at(f"ws://127.0.0.1:{port}/chat", "alice") as alice,
            client_at(f"ws://127.0.0.1:{port}/news", "bob") as bob,
        ):
            assert (list(chat.clients), list(news.clients)) == (["alice"], ["bob"])
            assert (chat.broadcast("m", 1), news.broadcast("m", 2)) == (1, 1)
            assert (await alice.receive()).payload == 1
            assert (await bob.receive()).payload == 2
            http = AsyncHTTPClient(force_instance=True)
            page = await http.fetch(f"http://127.0.0.1:{port}/")
            assert page.body == b"a page"
            http.close()
            with pytest.raises(ConnectionFailed, match="404"):
                async with client_at(f"ws://127.0.0.1:{port}/elsewhere"):
                    pass
        await chat.stop()
        await news.stop()


@pytest.mark.parametrize("pattern", [r"/rooms/(\w+)", r"/rooms/(?P<room>\w+)"])
async def test_arguments_of_the_path_reach_identify(pattern: str) -> None:
    def identify(auth: Any) -> str:
        room = (auth.handler.path_args or [auth.handler.path_kwargs.get("room")])[0]
        return f"{auth.identity}@{room if isinstance(room, str) else room.decode()}"

    server = AsyncWseServer(identify=identify)
    async with serving(server.routes(pattern)) as port:
        async with client_at(f"ws://127.0.0.1:{port}/rooms/kitchen?token=x"):
            assert list(server.clients) == ["alice@kitchen"]
        await server.stop()


async def test_a_query_argument_reaches_identify() -> None:
    server = AsyncWseServer(identify=lambda auth: auth.handler.get_query_argument("user"))
    async with serving(server.routes("/ws")) as port:
        async with client_at(f"ws://127.0.0.1:{port}/ws?user=carol", None):
            assert list(server.clients) == ["carol"]
        await server.stop()


async def test_identify_uses_the_signed_cookie_of_the_page() -> None:
    def identify(auth: Any) -> Any:
        user = auth.handler.get_signed_cookie("user")
        return user.decode() if user else auth.refuse()

    server = AsyncWseServer(identify=identify)
    async with serving([(r"/", Page), *server.routes("/ws")]) as port:
        http = AsyncHTTPClient(force_instance=True)
        page = await http.fetch(f"http://127.0.0.1:{port}/")
        http.close()
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        url = f"ws://127.0.0.1:{port}/ws"
        async with client_at(url, None, headers={"Cookie": cookie}):
            assert list(server.clients) == ["alice"]
        for headers in ({}, {"Cookie": "user=forged"}):
            with pytest.raises(NotAuthorized):
                async with client_at(url, None, headers=headers):
                    pass
        await server.stop()


async def test_a_server_that_stops_sends_away_who_still_comes_to_its_route() -> None:
    server = AsyncWseServer(identify=accept_all)
    async with serving(server.routes("/ws")) as port:
        url = f"ws://127.0.0.1:{port}/ws"
        async with client_at(url) as client:
            events = record_client(client)
            await server.stop()
            assert (await events.wait("closed"))[0] == 1012
        with pytest.raises(ConnectionFailed, match="1012"):
            async with client_at(url):
                pass


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def quiet_tls(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Tornado logs handshakes that fail; that is what these tests want."""
    yield
    caplog.clear()


async def test_an_existing_https_server_carries_it(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = AsyncWseServer(identify=accept_all)
    server.register("add", lambda conn, p: p["a"] + p["b"])
    async with serving([(r"/", Page), *server.routes("/ws")], ssl_options=server_tls) as port:
        url = f"wss://127.0.0.1:{port}/ws"
        async with client_at(url, ssl_options=client_tls) as client:
            assert await client.call("add", {"a": 5, "b": 3}) == 8
            client.register("echo", lambda payload: payload)
            (conn,) = server.clients["alice"].conns.values()
            assert await conn.call("echo", "x" * 200_000) == "x" * 200_000
            assert server.broadcast("m", 1) == 1
            assert (await client.receive()).payload == 1
            events = record_client(client)
            conn.drop("over TLS")
            assert await events.wait("closed") == (1000, "over TLS")
        await server.stop()


async def test_listen_serves_wss(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    server = AsyncWseServer(identify=accept_all)
    port = server.listen(0, "127.0.0.1", ssl_options=server_tls)
    async with client_at(f"wss://127.0.0.1:{port}", ssl_options=client_tls):
        assert list(server.clients) == ["alice"]
        events = record_server(server)
    assert await events.wait("left") == ("alice", 1000, "wse.by-client")
    await server.stop()


@pytest.mark.usefixtures("quiet_tls")
@pytest.mark.parametrize("reconnect", [False, True])
async def test_certificates_are_verified_by_default(
    server_tls: ssl.SSLContext, reconnect: bool
) -> None:
    server = AsyncWseServer(identify=lambda auth: pytest.fail("it sent its identity"))
    port = server.listen(0, "127.0.0.1", ssl_options=server_tls)
    client = AsyncWseClient(f"wss://127.0.0.1:{port}", reconnect=reconnect, timeout=seconds(10))
    # Final, with reconnect on too: trying again ends no better.
    with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
        await client.connect("alice")
    assert client.status is Status.OFFLINE
    await server.stop()


@pytest.mark.usefixtures("quiet_tls")
async def test_a_certificate_of_another_name_is_refused(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    server = AsyncWseServer(identify=accept_all)
    port = server.listen(0, "127.0.0.1", ssl_options=context)
    client = AsyncWseClient(f"wss://127.0.0.1:{port}", ssl_options=client_tls, timeout=seconds(10))
    with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
        await client.connect("alice")
    await server.stop()


@pytest.mark.usefixtures("quiet_tls")
async def test_a_port_without_tls_fails_clearly(client_tls: ssl.SSLContext) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    client = AsyncWseClient(f"wss://127.0.0.1:{port}", ssl_options=client_tls, timeout=seconds(10))
    with pytest.raises(ConnectionFailed, match="cannot reach wss://") as error:
        await client.connect("alice")
    assert "\n" not in str(error.value)
    plain.close()
    await plain.wait_closed()


async def test_a_client_over_tls_comes_back(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = AsyncWseServer(identify=accept_all)
    port = server.listen(0, "127.0.0.1", ssl_options=server_tls)
    url = f"wss://127.0.0.1:{port}"
    reconnect = Backoff(initial=0.01, maximum=0.05)
    async with client_at(url, ssl_options=client_tls, reconnect=reconnect) as client:
        events = record_client(client)
        (conn,) = server.clients["alice"].conns.values()
        conn.close(1012, "")
        await events.wait("ready", 2)
    await server.stop()


# -- origins


async def admits(port: int, origin: str | None, path: str = "/ws") -> bool:
    """Whether a browser on that origin gets its WebSocket."""
    headers = {} if origin is None else {"Origin": origin}
    try:
        peer = await asyncio.to_thread(lambda: RawPeer.connect(port, path=path, headers=headers))
    except AssertionError as refused:
        assert "403" in str(refused)
        return False
    await asyncio.to_thread(peer.close)
    return True


async def test_tornados_own_rule_holds_by_default() -> None:
    server = AsyncWseServer(identify=accept_all)
    async with serving(server.routes("/ws")) as port:
        assert await admits(port, None)  # no browser
        assert await admits(port, f"http://127.0.0.1:{port}")
        assert not await admits(port, "http://evil.example")
        assert not await admits(port, f"http://127.0.0.1:{port + 1}")
        await server.stop()


async def test_allowed_origins_are_allowed_besides() -> None:
    server = AsyncWseServer(
        identify=accept_all, allowed_origins=["https://Example.com", "http://localhost:3000/"]
    )
    async with serving(server.routes("/ws")) as port:
        assert await admits(port, "https://example.com")
        assert await admits(port, "https://EXAMPLE.com")
        assert await admits(port, "http://localhost:3000")
        assert await admits(port, f"http://127.0.0.1:{port}")
        assert not await admits(port, "http://example.com")
        assert not await admits(port, "https://example.com.evil.example")
        assert not await admits(port, "https://sub.example.com")
        assert not await admits(port, "null")
        await server.stop()


async def test_a_star_allows_all_origins() -> None:
    server = AsyncWseServer(identify=accept_all, allowed_origins=["*"])
    async with serving(server.routes("/ws")) as port:
        assert await admits(port, "http://evil.example")
        assert await admits(port, "null")
        await server.stop()


# -- proxies


@pytest.mark.parametrize("believed", [False, True])
async def test_forwarded_addresses_are_believed_only_where_told(believed: bool) -> None:
    seen: list[str] = []

    def identify(auth: Any) -> str:
        seen.append(auth.remote_addr)
        return "alice"

    server = AsyncWseServer(identify=identify)
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "203.0.113.9"}
    async with serving(server.routes("/ws"), xheaders=believed) as port:
        async with client_at(f"ws://127.0.0.1:{port}/ws", headers=headers):
            (conn,) = server.clients["alice"].conns.values()
            assert conn.remote_addr == seen[0]
        await server.stop()
    port = server.listen(0, "127.0.0.1", xheaders=believed)
    async with client_at(f"ws://127.0.0.1:{port}", headers=headers):
        pass
    await server.stop()
    assert seen == ["203.0.113.9" if believed else "127.0.0.1"] * 2


# -- compression


@pytest.mark.parametrize("on_server", [False, True, {"compression_level": 9}], ids=repr)
@pytest.mark.parametrize("on_client", [False, True], ids=repr)
async def test_compression_is_used_where_both_ends_want_it(on_server: Any, on_client: Any) -> None:
    server = AsyncWseServer(identify=accept_all, compression=on_server)
    port = server.listen(0, "127.0.0.1")
    text = "compressible " * 20_000
    async with client_at(f"ws://127.0.0.1:{port}", compression=on_client) as client:
        server.register("echo", lambda conn, payload: payload)
        client.register("echo", lambda payload: payload)
        assert await client.call("echo", text) == text
        (conn,) = server.clients["alice"].conns.values()
        assert await conn.call("echo", text) == text
        assert server.broadcast("m", text) == 1
        assert (await client.receive()).payload == text
        events = record_client(client)
        conn.drop("over")
        assert await events.wait("closed") == (1000, "over")
    await server.stop()


async def test_compression_is_negotiated_with_any_client() -> None:
    server = AsyncWseServer(identify=accept_all, compression=True)
    port = server.listen(0, "127.0.0.1")
    ws = await websocket_connect(
        f"ws://127.0.0.1:{port}",
        subprotocols=["wse-default-json"],
        compression_options={},
    )
    assert "permessage-deflate" in ws.headers["Sec-WebSocket-Extensions"]
    await ws.write_message('["~wse:hi",{"identity":"alice"},null]')
    assert await ws.read_message() == '["~wse:welcome",{"message":"Welcome!"},null]'
    ws.close()
    assert await ws.read_message() is None
    await server.stop()


async def test_a_plain_request_to_the_websocket_is_answered_with_400() -> None:
    server = AsyncWseServer(identify=accept_all)
    async with serving(server.routes("/ws")) as port:
        http = AsyncHTTPClient(force_instance=True)
        with pytest.raises(HTTPClientError) as error:
            await http.fetch(HTTPRequest(f"http://127.0.0.1:{port}/ws"))
        assert error.value.code in (400, 426)
        http.close()
        await server.stop()


# -- transport=


@pytest.mark.parametrize("transport", ["auto", "tornado", "pigeon"])
def test_the_argument_transport_is_ignored_with_a_warning(transport: str) -> None:
    for make in (
        lambda: AsyncWseServer(transport=transport),
        lambda: AsyncWseClient("ws://localhost", transport=transport),
        lambda: WseServer(transport=transport),
        lambda: WseClient("ws://localhost", transport=transport),
    ):
        with pytest.warns(DeprecationWarning, match="no effect") as caught:
            make()
        assert [warning.filename for warning in caught] == [__file__]


def test_routes_take_the_base_class_of_the_pages_for_current_user() -> None:
    class Base(tornado.web.RequestHandler):
        def get_current_user(self) -> str | None:
            cookie = self.get_signed_cookie("user")
            return cookie.decode() if cookie else None

    def identify(auth):
        user = auth.handler.current_user
        if user:
            auth.accept(user)
        else:
            auth.refuse()

    wse = AsyncWseServer(identify=identify)
    assert issubclass(wse.routes("/ws", base=Base)[1].handler_class, Base)
    with pytest.raises(TypeError, match="RequestHandler"):
        wse.routes("/ws", base=dict)  # type: ignore[arg-type]

    async def main() -> None:
        secret = "a secret of the test"
        app = tornado.web.Application(wse.routes("/ws", base=Base), cookie_secret=secret)
        http = app.listen(0, "127.0.0.1")
        port = next(iter(http._sockets.values())).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/ws"
        cookie = tornado.web.create_signed_value(secret, "user", "ann").decode()
        client = AsyncWseClient(url, headers={"Cookie": f"user={cookie}"})
        await client.connect()
        assert list(wse.clients) == ["ann"]
        for conn in wse.clients["ann"].conns.values():
            conn.drop()  # while looking at them
        stranger = AsyncWseClient(url)
        with pytest.raises(NotAuthorized):
            await stranger.connect()
        await client.close()
        await wse.stop()
        http.stop()
        await http.close_all_connections()

    asyncio.run(main())


def test_true_is_no_client_id() -> None:
    async def main() -> None:
        wse = AsyncWseServer(identify=lambda auth: True)
        port = wse.listen(0, "127.0.0.1")
        errors = []
        wse.when.error(lambda error, conn: errors.append(str(error)))
        client = AsyncWseClient(f"ws://127.0.0.1:{port}")
        with pytest.raises(NotAuthorized):
            await client.connect("anybody")
        assert "True is no id" in errors[0]
        await wse.stop()

    asyncio.run(main())
