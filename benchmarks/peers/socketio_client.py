"""``python-socketio``, its blocking client, with calls of its own protocol."""

from __future__ import annotations

import sys

import socketio

from .caller import ARGUMENT, serve_commands

if __name__ == "__main__":
    sio = socketio.Client()
    sio.connect(
        f"http://127.0.0.1:{sys.argv[2]}", auth={"identity": "user-1"}, transports=["websocket"]
    )
    serve_commands(lambda: sio.call("add", ARGUMENT))
