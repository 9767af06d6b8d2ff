"""Who is connected, and who gets a message: the one place that resolves users to devices.

What a user is does not depend on any one socket. Changes are made on the loop thread; looking up
is safe from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any, Generic, Protocol, TypeVar

from ..errors import printable, repr_of
from ..transport.base import SharedMessage
from .connection import Life
from .dispatch import Lane

__all__ = ["Device", "User", "Users", "View", "deliver"]

V = TypeVar("V")


class Device(Protocol):
    """What a user needs of one of its connections."""

    conn_id: str
    cid: Hashable
    life: Life
    remote_addr: str
    meta: dict[str, Any]
    face: Any
    lane: Lane
    user: User

    def send_shared(self, message: SharedMessage) -> bool:
        """Hand over a message; False if it is over, or too slow."""

    def end_slow(self) -> None:
        """Close it, because it does not keep up."""

    def close(self, code: int, reason: str) -> None:
        """Close it."""


D = TypeVar("D", bound=Device)


class View(Mapping[Any, V], Generic[V]):
    """A live, read-only view of users or connections, as users' handlers are given them.

    It iterates over what was there when the iteration began, so that a loop may drop what it
    meets, and other threads may look.
    """

    __slots__ = ("_source",)

    def __init__(self, source: dict[Any, Any]) -> None:
        self._source = source

    def __getitem__(self, key: Any) -> V:
        face: V = self._source[key].face
        return face

    def __iter__(self) -> Iterator[Any]:
        return iter(self._source.copy())

    def values(self) -> ValuesView[V]:
        """The users or connections."""
        return {key: item.face for key, item in self._source.copy().items()}.values()

    def items(self) -> ItemsView[Any, V]:
        """Ids, and users or connections."""
        return {key: item.face for key, item in self._source.copy().items()}.items()

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(dict(self.items()))


class User:
    """One user with all of its devices.

    Attributes:
        cid: The id that ``identify`` accepted.
        devices: The devices by ``conn_id``, oldest first; changed by `Users` only.
        face: What users' handlers are given in place of this object.
    """

    def __init__(self, cid: Hashable, make_face: Callable[[User], Any]) -> None:
        self.cid = cid
        self.devices: dict[str, Device] = {}
        self.face = make_face(self)
        self.leaving: asyncio.TimerHandle | None = None  # runs while the user lingers
        self.last: tuple[Device, int, str] | None = None  # the device that went last, and why
        self.meta: dict[str, Any] = {}  # of the newest device

    def __repr__(self) -> str:
        return f"<ClientIdentity {printable(repr_of(self.cid))} devices={len(self.devices)}>"


class Users(Generic[D]):
    """The users of a server, and the connections that have not been let in yet.

    Args:
        linger: Seconds that a user without devices stays.
        make_face: Makes what users' handlers are given in place of a `User`.
        on_left: Called when a user's time to linger is over.
    """

    def __init__(
        self,
        linger: float,
        make_face: Callable[[User], Any],
        on_left: Callable[[User], None],
    ) -> None:
        self._linger = linger
        self._make_face = make_face
        self._on_left = on_left
        self.by_id: dict[Hashable, User] = {}
        self.devices: dict[str, D] = {}
        self.unauthenticated: set[D] = set()
        self._addresses: dict[str, int] = {}  # of unauthenticated connections

    def unauthenticated_from(self, address: str) -> int:
        """How many unauthenticated connections come from an address."""
        return self._addresses.get(address, 0)

    def arrive(self, conn: D) -> None:
        """Track a new, unauthenticated connection."""
        self.unauthenticated.add(conn)
        address = conn.remote_addr
        self._addresses[address] = self._addresses.get(address, 0) + 1

    def _forget_arrival(self, conn: D) -> None:
        if conn in self.unauthenticated:
            self.unauthenticated.discard(conn)
            left = self._addresses[conn.remote_addr] - 1
            if left:
                self._addresses[conn.remote_addr] = left
            else:
                del self._addresses[conn.remote_addr]

    def enter(self, conn: D) -> bool:
        """Make an accepted connection a device of its user. True if the user has just come."""
        self._forget_arrival(conn)
        self.devices[conn.conn_id] = conn
        user = self.by_id.get(conn.cid)
        joined = user is None
        if user is None:
            user = self.by_id[conn.cid] = User(conn.cid, self._make_face)
        elif user.leaving is not None:
            user.leaving.cancel()
            user.leaving = None
        conn.user = user
        user.devices[conn.conn_id] = conn
        user.meta = conn.meta
        return joined

    def leave(self, conn: D, code: int, reason: str) -> bool:
        """A connection is over. True if its user has left with it."""
        self._forget_arrival(conn)
        if self.devices.pop(conn.conn_id, None) is None:
            return False
        user = conn.user
        del user.devices[conn.conn_id]
        if user.devices:
            user.meta = next(reversed(user.devices.values())).meta
            return False
        user.last = (conn, code, reason)
        if not self._linger:
            del self.by_id[user.cid]
            return True
        user.leaving = asyncio.get_running_loop().call_later(self._linger, self._lingered, user)
        return False

    def _lingered(self, user: User) -> None:
        user.leaving = None
        del self.by_id[user.cid]
        self._on_left(user)

    def end_lingering(self) -> None:
        """No user lingers any longer."""
        for user in tuple(self.by_id.values()):
            if user.leaving is not None:
                user.leaving.cancel()
                self._lingered(user)

    # -- who gets a message

    def everyone(self, exclude: Hashable = None) -> list[D]:
        """All devices, but those of the user ``exclude``. Any thread."""
        devices = list(self.devices.values())
        if exclude is None:
            return devices
        return [conn for conn in devices if conn.cid != exclude]

    def devices_of(self, cid: Hashable) -> list[Device]:
        """The devices of one user, oldest first. Any thread."""
        user = self.by_id.get(cid)
        return list(user.devices.values()) if user is not None else []


def deliver(message: SharedMessage, devices: Iterable[Device]) -> int:
    """Hand one message to many devices, then end those that do not keep up.

    Ending them comes last, because it tells handlers, which may broadcast in turn: what they send
    must not reach anybody before this message does.

    Returns:
        To how many it was handed.
    """
    count = 0
    slow = []
    for conn in devices:
        if conn.send_shared(message):
            count += 1
        elif conn.life is Life.READY:
            slow.append(conn)
    for conn in slow:
        conn.end_slow()
    return count
