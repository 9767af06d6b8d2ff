"""Users and their devices: `ClientIdentity`, and the registry that everything goes through that
addresses users. What a user is does not depend on any one socket."""

from __future__ import annotations

import asyncio
from collections.abc import (
    Callable,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import Reason
from ..transport.base import SharedMessage

if TYPE_CHECKING:
    from .connection import Connection
    from .server import AsyncWseServer

__all__ = ["ClientIdentity", "Registry"]


V = TypeVar("V")


class View(Mapping[Any, V], Generic[V]):
    """A live, read-only view of users or connections, as users' handlers are given them.

    What it iterates over is as it was when the iteration began, so that a loop may drop what it
    meets, and other threads may look.
    """

    __slots__ = ("_source",)

    def __init__(self, source: dict[Any, Any]) -> None:
        self._source = source

    def __getitem__(self, key: Any) -> V:
        handle: V = self._source[key].handle
        return handle

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source.copy())

    def values(self) -> ValuesView[V]:
        """The users or connections."""
        return {key: item.handle for key, item in self._source.copy().items()}.values()

    def items(self) -> ItemsView[Any, V]:
        """Ids, and users or connections."""
        return {key: item.handle for key, item in self._source.copy().items()}.items()

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(dict(self.items()))


class ClientIdentity:
    """One user of a server, with all of its devices.

    Attributes:
        cid: The id that ``identify`` accepted.
    """

    def __init__(self, server: AsyncWseServer, cid: Hashable) -> None:
        self.cid = cid
        self._server = server
        # Oldest first; changed by the registry only.
        self.own_conns: dict[str, Connection] = {}
        self._leaving: asyncio.TimerHandle | None = None
        self._last: tuple[Connection, int, str] | None = None
        self.handle: Any = self  # what users' handlers are given: this, or the blocking facade

    @property
    def conns(self) -> Mapping[str, Connection]:
        """The user's open connections by ``conn_id``, oldest first; a read-only view."""
        return View(self.own_conns)

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to every device of this user.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
        """
        return deliver(self._server.pack(type, payload), self.own_conns.values())

    def drop(self, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of this user with 1000 and ``reason``.

        Returns:
            How many connections were closed.
        """
        conns = tuple(self.own_conns.values())
        for conn in conns:
            conn.drop(reason)
        return len(conns)

    def __repr__(self) -> str:
        return f"<ClientIdentity {self.cid!r} devices={len(self.own_conns)}>"


class Registry:
    """Who is connected. All addressing of users goes through here.

    Args:
        linger: Seconds a user without connections stays.
        on_left: Called when a user is gone, with the code and reason of the last closing.
    """

    def __init__(
        self, linger: float, on_left: Callable[[ClientIdentity, Connection, int, str], None]
    ) -> None:
        self._linger = linger
        self._on_left = on_left
        self.clients: dict[Hashable, ClientIdentity] = {}
        self.strangers: set[Connection] = set()
        self._stranger_addresses: dict[str, int] = {}
        self.connections: dict[str, Connection] = {}

    def __len__(self) -> int:
        return len(self.connections) + len(self.strangers)

    def strangers_from(self, address: str) -> int:
        """How many strangers come from an address."""
        return self._stranger_addresses.get(address, 0)

    def add_stranger(self, conn: Connection) -> None:
        """Somebody is at the door."""
        self.strangers.add(conn)
        address = conn.remote_addr
        self._stranger_addresses[address] = self._stranger_addresses.get(address, 0) + 1

    def _forget_stranger(self, conn: Connection) -> None:
        if conn in self.strangers:
            self.strangers.discard(conn)
            left = self._stranger_addresses[conn.remote_addr] - 1
            if left:
                self._stranger_addresses[conn.remote_addr] = left
            else:
                del self._stranger_addresses[conn.remote_addr]

    def add(self, client: ClientIdentity, conn: Connection) -> bool:
        """Give a stranger to its user. True if the user has just come."""
        self._forget_stranger(conn)
        self.connections[conn.conn_id] = conn
        joined = client.cid not in self.clients
        if joined:
            self.clients[client.cid] = client
        elif client._leaving is not None:
            client._leaving.cancel()
            client._leaving = None
        client.own_conns[conn.conn_id] = conn
        return joined

    def remove(self, conn: Connection, code: int, reason: str) -> None:
        """A connection is over; its user leaves with its last one."""
        self._forget_stranger(conn)
        if self.connections.pop(conn.conn_id, None) is None:
            return
        client = conn.client
        del client.own_conns[conn.conn_id]
        if client.own_conns:
            return
        client._last = (conn, code, reason)
        if self._linger:
            client._leaving = asyncio.get_running_loop().call_later(
                self._linger, self._leave, client
            )
        else:
            self._leave(client)

    def _leave(self, client: ClientIdentity) -> None:
        client._leaving = None
        if self.clients.pop(client.cid, None) is not None and client._last is not None:
            self._on_left(client, *client._last)

    def let_all_leave(self) -> None:
        """No user lingers any longer."""
        for client in tuple(self.clients.values()):
            if client._leaving is not None:
                client._leaving.cancel()
                self._leave(client)

    def everyone(self, exclude: Hashable = None) -> Iterable[Connection]:
        """All connections, but those of the user ``exclude``."""
        if exclude is None:
            return self.connections.values()
        return [conn for conn in self.connections.values() if conn.cid != exclude]


def deliver(message: SharedMessage, conns: Iterable[Connection]) -> int:
    """Hand one message to many connections. Returns to how many."""
    return sum(1 for conn in tuple(conns) if conn.send_shared(message))
