"""Small servers, each as its library's author would write it: ``servers NAME FLAVOUR [tls]``.

A library is imported in its function, so that a process holds only the one that is measured.
Those without calls of their own share the wire by hand, with JSON of the standard library, so that
only their WebSocket differs: a connection has to authenticate, and a call that fails gets an error.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from typing import Any

from ..control import obey, report, serve
from ..cores import raise_file_limit
from ..tls import server_context
from . import flavour

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
decode = json.loads
Tls = ssl.SSLContext | None

HOST = "127.0.0.1"
MAX_SIZE = 10 * 1024 * 1024  # bytes of a message, as in this library
SUBPROTOCOL = "wse-default-json"
WELCOME = {"message": "Welcome!"}


def add(payload: dict[str, int]) -> int:
    """The procedure that is called most."""
    return payload["a"] + payload["b"]


PROCEDURES = {"add": add, "add-worker": add, "echo": lambda payload: payload}


def known(identity: Any) -> bool:
    """Whether that user may come in."""
    return isinstance(identity, str) and identity.startswith("user-")


def judge(auth: Any) -> None:
    """`known`, as this library asks it."""
    if known(auth.identity):
        auth.accept(auth.identity, WELCOME)
    else:
        auth.refuse()


def welcome(type: str, payload: Any) -> tuple[str | None, str | None]:
    """Judge a connection's first message: the user and what to answer, or two times None."""
    if type != "~wse:hi" or not known(payload["identity"]):
        return None, None
    return payload["identity"], encode(("~wse:welcome", WELCOME, None))


def answer(name: str, payload: Any, stamp: str) -> str:
    """Serve a call."""
    procedure = PROCEDURES.get(name)
    if procedure is None:
        error: dict[str, Any] = {"code": "wse.server.rp.not-registered"}
        return encode(("~wse:response-err", error, stamp))
    try:
        return encode(("~wse:response", procedure(payload), stamp))
    except Exception as exc:
        error = {"code": "wse.server.rp.failed", "message": str(exc), "details": {"rpc": name}}
        return encode(("~wse:response-err", error, stamp))


def announcement(payload: Any) -> str:
    """What a broadcast sends."""
    return encode(("shout", payload, None))


def listen(application: Any, tls: Tls) -> int:
    """Open a port for a Tornado application."""
    import tornado.httpserver
    import tornado.netutil

    sockets = tornado.netutil.bind_sockets(0, HOST)
    tornado.httpserver.HTTPServer(application, ssl_options=tls).add_sockets(sockets)
    return int(sockets[0].getsockname()[1])


# -- on a loop: each opens its port and returns it


async def wse(tls: Tls) -> int:
    from wse_tornado import AsyncWseServer

    server = AsyncWseServer(identify=judge)

    @server.register("add")
    def served_add(conn: Any, payload: dict[str, int]) -> int:
        return add(payload)

    @server.register("echo")
    def echo(conn: Any, payload: Any) -> Any:
        return payload

    @server.channel.on("shout")
    def shout(conn: Any, payload: Any) -> None:
        server.broadcast("shout", payload)

    return server.listen(0, HOST, ssl_options=tls)


async def tornado(tls: Tls) -> int:
    import tornado.web
    import tornado.websocket

    users: dict[str, Any] = {}

    class Handler(tornado.websocket.WebSocketHandler):
        user: str | None = None

        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            return SUBPROTOCOL if SUBPROTOCOL in subprotocols else None

        def open(self) -> None:
            self.set_nodelay(True)

        def on_message(self, message: str | bytes) -> None:
            type, payload, stamp = decode(message)
            if self.user is None:
                self.user, reply = welcome(type, payload)
                if self.user is None or reply is None:
                    self.close(1000, "wse.not-authorized")
                    return
                users[self.user] = self
                self.write_message(reply)
            elif stamp:
                self.write_message(answer(type, payload, stamp))
            elif type == "shout":
                text = announcement(payload)
                for handler in users.values():
                    handler.write_message(text)

        def on_close(self) -> None:
            if self.user is not None:
                del users[self.user]

    application = tornado.web.Application(
        [(r"/.*", Handler)],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
    )
    return listen(application, tls)


async def websockets(tls: Tls) -> int:
    from websockets.asyncio.server import ServerConnection, broadcast
    from websockets.asyncio.server import serve as ws_serve

    users: dict[str, ServerConnection] = {}

    async def handler(ws: ServerConnection) -> None:
        user = None
        try:
            async for message in ws:
                type, payload, stamp = decode(message)
                if user is None:
                    user, reply = welcome(type, payload)
                    if user is None or reply is None:
                        await ws.close(1000, "wse.not-authorized")
                        return
                    users[user] = ws
                    await ws.send(reply)
                elif stamp:
                    await ws.send(answer(type, payload, stamp))
                elif type == "shout":
                    broadcast(users.values(), announcement(payload))
        finally:
            if user is not None:
                del users[user]

    server = await ws_serve(
        handler, HOST, 0, max_size=MAX_SIZE, subprotocols=[SUBPROTOCOL], ssl=tls
    )
    return int(server.sockets[0].getsockname()[1])


async def picows(tls: Tls) -> int:
    import picows
    from picows import WSListener, WSMsgType, WSUpgradeResponse, WSUpgradeResponseWithListener

    text, close = WSMsgType.TEXT, WSMsgType.CLOSE
    users: dict[str, Any] = {}

    class Listener(WSListener):  # type: ignore[misc]
        user: str | None = None

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            kind = frame.msg_type
            if kind is not text and kind != text:
                if kind == close:
                    transport.send_close(picows.WSCloseCode.OK)
                    transport.disconnect()
                return
            type, payload, stamp = decode(frame.get_payload_as_utf8_text())
            if self.user is None:
                self.user, reply = welcome(type, payload)
                if self.user is None or reply is None:
                    transport.send_close(picows.WSCloseCode.OK, b"wse.not-authorized")
                    return
                users[self.user] = transport
                transport.send(text, reply.encode())
            elif stamp:
                transport.send(text, answer(type, payload, stamp).encode())
            elif type == "shout":
                data = announcement(payload).encode()
                for other in users.values():
                    other.send(text, data)

        def on_ws_disconnected(self, transport: Any) -> None:
            if self.user is not None:
                del users[self.user]

    def accept(request: Any) -> Any:
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, Listener())

    server = await picows.ws_create_server(accept, HOST, 0, max_frame_size=MAX_SIZE, ssl=tls)
    return int(server.sockets[0].getsockname()[1])


async def socketio(tls: Tls) -> int:
    """Its own protocol's events and acknowledgements, on Tornado."""
    import socketio
    import tornado.web

    sio = socketio.AsyncServer(async_mode="tornado", max_http_buffer_size=MAX_SIZE)

    @sio.event
    async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> bool:
        return known(auth["identity"])

    @sio.on("add")
    async def served_add(sid: str, payload: dict[str, int]) -> int:
        return add(payload)

    @sio.event
    async def echo(sid: str, payload: Any) -> Any:
        return payload

    @sio.event
    async def shout(sid: str, payload: Any) -> None:
        await sio.emit("shout", payload)

    application = tornado.web.Application(
        [(r"/socket.io/", socketio.get_tornado_handler(sio))],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
    )
    return listen(application, tls)


# -- blocking: each starts its threads and returns its port


def wse_blocking(tls: Tls) -> int:
    """``add`` inline on the loop, ``add-worker`` on its threads."""
    from wse_tornado import WseServer

    server = WseServer(port=0, host=HOST, identify=judge, ssl_options=tls)

    @server.register("add", inline=True)
    def inline_add(conn: Any, payload: dict[str, int]) -> int:
        return add(payload)

    @server.register("add-worker")
    def worker_add(conn: Any, payload: dict[str, int]) -> int:
        return add(payload)

    server.start()
    return server.port


def websockets_blocking(tls: Tls) -> int:
    """One thread for each connection."""
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as ws_serve

    def handler(ws: ServerConnection) -> None:
        user = None
        for message in ws:
            type, payload, stamp = decode(message)
            if user is None:
                user, reply = welcome(type, payload)
                if user is None or reply is None:
                    ws.close(1000, "wse.not-authorized")
                    return
                ws.send(reply)
            elif stamp:
                ws.send(answer(type, payload, stamp))

    server = ws_serve(handler, HOST, 0, max_size=MAX_SIZE, subprotocols=[SUBPROTOCOL], ssl=tls)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.socket.getsockname()[1])


ON_LOOP = {each.__name__: each for each in (wse, tornado, websockets, picows, socketio)}
BLOCKING = {each.__name__: each for each in (wse_blocking, websockets_blocking)}


def main(name: str, kind: str, *secure: str) -> None:
    run = flavour.choose(kind)
    tls = server_context() if secure else None
    if name in ON_LOOP:
        serve(lambda: ON_LOOP[name](tls), run)
    else:
        raise_file_limit()
        report(port=BLOCKING[name](tls))
        obey()


if __name__ == "__main__":
    main(*sys.argv[1:])
