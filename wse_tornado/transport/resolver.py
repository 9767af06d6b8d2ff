"""Name look-ups that cannot hold up the end of the program.

asyncio looks names up on executor threads, which the interpreter joins at exit: a name server that
does not answer would keep a finished script alive.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from tornado.netutil import Resolver

__all__ = ["DaemonResolver"]

Address = tuple[int, Any]


class DaemonResolver(Resolver):
    """Numeric addresses at once, names on a daemon thread of their own."""

    @classmethod
    def configurable_base(cls) -> type[DaemonResolver]:
        return DaemonResolver

    @classmethod
    def configurable_default(cls) -> type[DaemonResolver]:
        return DaemonResolver

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[Address]:
        """Addresses of ``host``.

        Raises:
            OSError: There are none.
        """
        try:
            return _look_up(host, port, family, socket.AI_NUMERICHOST)
        except OSError:
            pass
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Address]] = loop.create_future()

        def settle(result: list[Address] | None, error: OSError | UnicodeError | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(error)
            else:
                found.set_result(result or [])

        def look_up() -> None:
            outcome: tuple[list[Address] | None, OSError | UnicodeError | None]
            try:
                outcome = _look_up(host, port, family, 0), None
            except (OSError, UnicodeError) as exc:
                outcome = None, exc
            try:
                loop.call_soon_threadsafe(settle, *outcome)
            except RuntimeError:  # the loop ended first; nobody waits any more
                pass

        threading.Thread(target=look_up, name="wse-tornado-resolver", daemon=True).start()
        return await found


def _look_up(host: str, port: int, family: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
    return [(fam, address) for fam, _type, _proto, _name, address in found]
