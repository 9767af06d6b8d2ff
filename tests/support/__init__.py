"""The one helper package of the tests: raw peers, servers in both flavours, leak checks."""

from .leaks import open_sockets, wait_until
from .peer import Closed, RawPeer, RawServer
from .servers import FLAVOURS, Served, serve
from .timing import seconds

__all__ = [
    "FLAVOURS",
    "Closed",
    "RawPeer",
    "RawServer",
    "Served",
    "open_sockets",
    "seconds",
    "serve",
    "wait_until",
]
