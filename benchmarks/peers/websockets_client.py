"""``websockets``, its threaded client: alone with the socket, or shared by threads."""

from __future__ import annotations

import sys

from websockets.sync.client import connect

from .caller import serve_commands
from .minimal import SUBPROTOCOL, encode
from .shared_socket import SharedSocket, plain_call


def main(how: str, port: str) -> None:
    with connect(f"ws://127.0.0.1:{port}", subprotocols=[SUBPROTOCOL], compression=None) as ws:
        ws.send(encode(("~wse:hi", {"identity": "user-1"}, None)))
        ws.recv()
        if how == "shared":
            serve_commands(SharedSocket(ws.send, ws.recv).call)
        else:
            serve_commands(lambda: plain_call(ws.send, ws.recv))


if __name__ == "__main__":
    main(*sys.argv[1:])
