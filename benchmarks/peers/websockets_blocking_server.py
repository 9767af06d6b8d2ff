"""``websockets``, its threaded server: one thread for each connection."""

from __future__ import annotations

import threading

from websockets.sync.server import ServerConnection, serve

from ..control import obey, report
from ..cores import raise_file_limit
from .minimal import MAX_SIZE, SUBPROTOCOL, answer, decode, welcome


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


if __name__ == "__main__":
    raise_file_limit()
    server = serve(handler, "127.0.0.1", 0, max_size=MAX_SIZE, subprotocols=[SUBPROTOCOL])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report(port=server.socket.getsockname()[1])
    obey()
