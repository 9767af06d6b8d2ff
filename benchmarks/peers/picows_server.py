"""``picows``, a WebSocket in Cython without extras, on uvloop, speaking this wire."""

from __future__ import annotations

import picows
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from ..control import serve
from .minimal import MAX_SIZE, SUBPROTOCOL, announcement, answer, decode, welcome

TEXT = WSMsgType.TEXT
CLOSE = WSMsgType.CLOSE
users: dict[str, WSTransport] = {}


class Listener(WSListener):  # type: ignore[misc]
    user: str | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is not TEXT and kind != TEXT:
            if kind == CLOSE:
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
            transport.send(TEXT, reply.encode())
        elif stamp:
            transport.send(TEXT, answer(type, payload, stamp).encode())
        elif type == "shout":
            data = announcement(payload).encode()
            for other in users.values():
                other.send(TEXT, data)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.user is not None:
            del users[self.user]


def accept(request: WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
    return picows.WSUpgradeResponseWithListener(
        picows.WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": SUBPROTOCOL}),
        Listener(),
    )


async def start() -> int:
    server = await picows.ws_create_server(accept, "127.0.0.1", 0, max_frame_size=MAX_SIZE)
    return int(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    serve(start, uvloop.run)
