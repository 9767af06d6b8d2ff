"""What handlers of an async server are given: one device, and one user with all devices."""

from __future__ import annotations

from typing import Any

from ..core.hub import Hub
from ..core.server_connection import ServerConnection
from ..core.shared import check_timeout
from ..core.users import User
from ..errors import CloseCode, Reason
from ..faces import ConnectionFace, IdentityFace
from ..rpc import check_rpc_name

__all__ = ["AsyncClientIdentity", "AsyncConnection"]


class AsyncConnection(ConnectionFace["AsyncClientIdentity"]):
    """One device of one user; as `Connection`, on the server's loop."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub, conn: ServerConnection) -> None:
        super().__init__(conn)
        self._hub = hub

    def send(self, type: Any, payload: Any = None) -> int:
        """As `Connection.send`."""
        message = self._hub.pack(type, payload)
        return 1 if self._conn.send_packed(message.payload, message.binary) else 0

    async def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """As `Connection.call`, awaited."""
        check_rpc_name(name)
        seconds = self._hub.shared.timeout if timeout is None else check_timeout(timeout)
        return await self._conn.call_and_wait(name, payload, seconds)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close this connection with 1000 and ``reason``; it is out of its user at once."""
        self._conn.close(CloseCode.NORMAL_CLOSURE, reason)


class AsyncClientIdentity(IdentityFace[AsyncConnection]):
    """One user of an async server with all devices; as `ClientIdentity`, on the server's loop."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub, user: User) -> None:
        super().__init__(user)
        self._hub = hub

    def send(self, type: Any, payload: Any = None) -> int:
        """As `ClientIdentity.send`."""
        message = self._hub.pack(type, payload)
        return self._hub.deliver(message, list(self._user.devices.values()))

    def drop(self, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of this user with 1000 and ``reason``.

        Returns:
            How many connections were closed.
        """
        devices = list(self._user.devices.values())
        self._hub.drop(devices, reason)
        return len(devices)
