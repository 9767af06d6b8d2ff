"""``websockets``, its asyncio server on uvloop (``fast``) or asyncio's loop, speaking this wire."""

from __future__ import annotations

import sys

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as listen

from ..control import serve
from .flavour import choose
from .minimal import MAX_SIZE, SUBPROTOCOL, announcement, answer, decode, welcome

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


async def start() -> int:
    server = await listen(handler, "127.0.0.1", 0, max_size=MAX_SIZE, subprotocols=[SUBPROTOCOL])
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(start, choose(sys.argv))
