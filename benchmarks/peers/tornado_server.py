"""A minimal Tornado ``WebSocketHandler`` that speaks this wire, on asyncio's loop or on uvloop."""

from __future__ import annotations

import sys

import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket

from ..control import serve
from . import flavour
from .minimal import MAX_SIZE, SUBPROTOCOL, announcement, answer, decode, welcome

users: dict[str, Handler] = {}


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


async def start() -> int:
    application = tornado.web.Application(
        [(r"/.*", Handler)],
        websocket_max_message_size=MAX_SIZE,
        log_function=lambda handler: None,
    )
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_sockets(sockets)
    return int(sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(start, flavour.choose(sys.argv))
