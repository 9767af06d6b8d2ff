"""The processes under test, as data: which library does what, in which configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..wire import SocketIo, Wire, Wse

WSE = Wse()
SOCKET_IO = SocketIo()


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        module: Its name in this package.
        arguments: Its command line; TLS or the light server's URL is added to it.
        tls: Whether it speaks TLS.
        wire: What a server speaks.
    """

    module: str
    arguments: tuple[str, ...] = ()
    tls: bool = False
    wire: Wire = WSE

    def command(self, port: int, tls_port: int) -> tuple[str, ...]:
        """Its whole command line, given the ports of the light server."""
        if self.module != "clients":
            return (*self.arguments, *(("tls",) if self.tls else ()))
        url = f"wss://127.0.0.1:{tls_port}" if self.tls else f"ws://127.0.0.1:{port}"
        return (*self.arguments, url)


# A peer is a library in one configuration. These are all, in the order of the tables: what it is
# called, and the modules it needs. "before" is another checkout of this library.
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "wse-fast": ("wse_tornado[fast]", ("uvloop", "msgspec")),
    "wse-before-fast": ("before, [fast]", ("uvloop", "msgspec")),
    "wse-plain": ("wse_tornado", ()),
    "wse-before-plain": ("before", ()),
    "tornado": ("Tornado, minimal handler", ()),
    "tornado-uvloop": ("Tornado, minimal handler, uvloop", ("uvloop",)),
    "websockets": ("websockets (uvloop)", ("websockets", "uvloop")),
    "websockets-asyncio": ("websockets, asyncio's loop", ("websockets",)),
    "picows": ("picows (uvloop)", ("picows", "uvloop")),
    "socketio": ("python-socketio", ("socketio", "websocket")),
    "websockets-sync": ("websockets.sync", ("websockets",)),
    "websocket-client": ("websocket-client", ("websocket",)),
}
LABELS = {key: label for key, (label, _) in PEERS.items()}
PAIRS = {"wse-fast": "wse-before-fast", "wse-plain": "wse-before-plain"}
OURS = {"wse-fast": "fast", "wse-plain": "plain"} | {
    "wse-before-fast": "before-fast",
    "wse-before-plain": "before-plain",
}


def ours(module: str, name: str, *arguments: str) -> dict[str, Program]:
    """This library in every flavour."""
    return {peer: Program(module, (name, kind, *arguments)) for peer, kind in OURS.items()}


def over_tls(programs: dict[str, Program], peers: Iterable[str]) -> dict[str, Program]:
    """Some of these programs, and this library, on TLS."""
    return {peer: replace(programs[peer], tls=True) for peer in (*OURS, *peers)}


SERVERS = {
    **ours("servers", "wse"),
    "tornado": Program("servers", ("tornado", "plain")),
    "websockets": Program("servers", ("websockets", "fast")),
    "picows": Program("servers", ("picows", "fast")),
    "socketio": Program("servers", ("socketio", "plain"), wire=SOCKET_IO),
}
SERVERS_OF_CALLS = {
    **SERVERS,
    "tornado-uvloop": Program("servers", ("tornado", "fast")),
    "websockets-asyncio": Program("servers", ("websockets", "plain")),
}
INLINE_SERVERS = ours("servers", "wse_blocking")
BLOCKING_SERVERS = {
    **INLINE_SERVERS,
    "websockets-sync": Program("servers", ("websockets_blocking", "plain")),
}
CLIENTS_ALONE = {
    **ours("clients", "wse", "alone"),
    "websockets-sync": Program("clients", ("websockets", "plain", "alone")),
    "websocket-client": Program("clients", ("websocket_client", "plain", "alone")),
    "socketio": Program("clients", ("socketio", "plain", "alone")),
}
CLIENTS_SHARED = {
    **CLIENTS_ALONE,
    "websockets-sync": Program("clients", ("websockets", "plain", "shared")),
    "websocket-client": Program("clients", ("websocket_client", "plain", "shared")),
}
TLS_SERVERS = over_tls(SERVERS, ("tornado", "websockets", "picows"))
TLS_CLIENTS = over_tls(CLIENTS_ALONE, ("websockets-sync", "websocket-client"))
LIGHT_SERVER = Program("light_server")
