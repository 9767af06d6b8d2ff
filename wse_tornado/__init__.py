"""Authenticated WebSocket users with several devices each, messages and calls both ways.

The plain names block: `WseServer` and `WseClient` need no ``async``. `AsyncWseServer` and
`AsyncWseClient` are the same on your own Tornado loop.
"""

from .admission import AuthRequest, Challenge
from .aio.client import AsyncWseClient
from .aio.connection import Connection as AsyncConnection
from .aio.server import AsyncWseServer
