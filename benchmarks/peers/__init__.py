"""The processes under test: small servers and clients, each as its library's author would write
it, and the light server that the clients talk to."""

from __future__ import annotations

from dataclasses import dataclass

from ..wire import SocketIo, Wire, Wse

WSE = Wse()
SOCKET_IO = SocketIo()


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        module: Its name in this package.
        arguments: Its command line; clients get the light server's port after it.
        wire: What a server speaks.
    """

    module: str
    arguments: tuple[str, ...] = ()
    wire: Wire = WSE


# A peer is a library in one configuration. These are all, in the order of the tables.
LABELS = {
    "wse-fast": "wse_tornado[fast]",
    "wse-plain": "wse_tornado",
    "tornado": "Tornado, minimal handler",
    "tornado-uvloop": "Tornado, minimal handler, uvloop",
    "websockets": "websockets (uvloop)",
    "websockets-asyncio": "websockets, asyncio's loop",
    "picows": "picows (uvloop)",
    "socketio": "python-socketio",
    "websockets-sync": "websockets.sync",
    "websocket-client": "websocket-client",
}
PACKAGES = {
    "wse-fast": ("uvloop", "msgspec"),
    "tornado-uvloop": ("uvloop",),
    "websockets": ("websockets", "uvloop"),
    "websockets-asyncio": ("websockets",),
    "picows": ("picows", "uvloop"),
    "socketio": ("socketio", "websocket"),
    "websockets-sync": ("websockets",),
    "websocket-client": ("websocket",),
}

SERVERS = {
    "wse-fast": Program("wse_server", ("fast",)),
    "wse-plain": Program("wse_server", ("plain",)),
    "tornado": Program("tornado_server", ("plain",)),
    "websockets": Program("websockets_server", ("fast",)),
    "picows": Program("picows_server"),
    "socketio": Program("socketio_server", (), SOCKET_IO),
}
SERVERS_OF_CALLS = {
    **SERVERS,
    "tornado-uvloop": Program("tornado_server", ("fast",)),
    "websockets-asyncio": Program("websockets_server", ("plain",)),
}
BLOCKING_SERVERS = {
    "wse-fast": Program("wse_blocking_server", ("fast",)),
    "wse-plain": Program("wse_blocking_server", ("plain",)),
    "websockets-sync": Program("websockets_blocking_server"),
}
CLIENTS_ALONE = {
    "wse-fast": Program("wse_client", ("fast",)),
    "wse-plain": Program("wse_client", ("plain",)),
    "websockets-sync": Program("websockets_client", ("alone",)),
    "websocket-client": Program("websocket_client_client", ("alone",)),
    "socketio": Program("socketio_client", ("any",)),
}
CLIENTS_SHARED = {
    **CLIENTS_ALONE,
    "websockets-sync": Program("websockets_client", ("shared",)),
    "websocket-client": Program("websocket_client_client", ("shared",)),
}
LIGHT_SERVER = Program("light_server")
