"""``python-socketio`` on Tornado: its own protocol's events and acknowledgements."""

from __future__ import annotations

import asyncio
from typing import Any

import socketio
import tornado.httpserver
import tornado.netutil
import tornado.web

from ..control import serve
from .minimal import MAX_SIZE, add, identify

sio = socketio.AsyncServer(async_mode="tornado", max_http_buffer_size=MAX_SIZE)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any]) -> bool:
    return identify(auth["identity"])


@sio.on("add")
async def served_add(sid: str, payload: dict[str, int]) -> int:
    return add(payload)


@sio.event
async def echo(sid: str, payload: Any) -> Any:
    return payload


@sio.event
async def shout(sid: str, payload: Any) -> None:
    await sio.emit("shout", payload)


async def start() -> int:
    application = tornado.web.Application(
        [(r"/socket.io/", socketio.get_tornado_handler(sio))],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
    )
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_sockets(sockets)
    return int(sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(start, asyncio.run)
