"""``websocket-client``: alone with the socket, or shared by threads."""

from __future__ import annotations

import socket
import sys

import websocket

from .caller import serve_commands
from .minimal import SUBPROTOCOL, encode
from .shared_socket import SharedSocket, plain_call

if __name__ == "__main__":
    ws = websocket.create_connection(
        f"ws://127.0.0.1:{sys.argv[2]}",
        subprotocols=[SUBPROTOCOL],
        sockopt=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    ws.send(encode(("~wse:hi", {"identity": "user-1"}, None)))
    ws.recv()
    if sys.argv[1] == "shared":
        serve_commands(SharedSocket(ws.send, ws.recv).call)
    else:
        serve_commands(lambda: plain_call(ws.send, ws.recv))
