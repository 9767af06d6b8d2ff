"""Mounted in an application of one's own: routes, cookies, path and query arguments."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tornado.web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import (
    AsyncWseClient,
    AsyncWseServer,
    ConnectionFailed,
    NotAuthorized,
)

from ..support import accept_all, seconds


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
