"""What handlers of a blocking server are given: one device, and one user with all devices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.connection import Life
from ..core.hub import Hub
from ..core.server_connection import ServerConnection
from ..core.shared import check_timeout
from ..core.users import Device, User
from ..errors import CloseCode, ConnectionNotReady, Reason
from ..faces import ConnectionFace, IdentityFace
from ..rpc import check_rpc_name, disconnected_error, timeout_error
from ..transport.base import SharedMessage
from .calling import Outbox
from .loop import Deadline, LoopThread, Wait

__all__ = ["ClientIdentity", "Connection", "post"]

PER_RECEIVER = 100  # bytes; what a receiver of a message costs the loop, about


def post(outbox: Outbox, hub: Hub, message: SharedMessage, devices: Iterable[Device]) -> int:
    """Hand a message to those devices that are open, on the loop. Returns how many they are.

    Raises:
        SendTimeout: The loop did not take what was sent before within the server's time-out.
        WrongThread: On a copy left by a fork.
    """
    receivers = [conn for conn in devices if conn.life is Life.READY]
    outbox.check_process()
    if receivers:
        size = len(message.payload) + PER_RECEIVER * len(receivers)
        deadline = None if outbox.on_loop else Deadline(hub.shared.timeout)
        try:
            outbox.put(size, deadline, "send", hub.deliver, message, receivers)
        except ConnectionNotReady:
            return 0
    return len(receivers)


class Connection(ConnectionFace["ClientIdentity"]):
    """One device of one user, as handlers of a blocking server get it. Any thread."""

    __slots__ = ("_hub", "_loop", "_outbox")

    def __init__(self, loop: LoopThread, outbox: Outbox, hub: Hub, conn: ServerConnection) -> None:
        super().__init__(conn)
        self._loop = loop
        self._outbox = outbox
        self._hub = hub

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to this device only. Never waits; a device that does not keep up is closed with
        1013 (``Limits.max_send_buffer``).

        Returns:
            1, or 0 where the connection is over.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        return post(self._outbox, self._hub, self._hub.pack(type, payload), (self._conn,))

    def call(self, name: str, payload: Any = None, *, timeout: float | None = None) -> Any:
        """Call a procedure that this device has registered, and wait for its answer.

        Args:
            name: Its name.
            payload: Its argument.
            timeout: Seconds; the server's ``timeout`` by default.

        Raises:
            RpcTimeout: No answer in time.
            RpcNotRegistered: The device has no such procedure.
            RpcDisconnected: The connection ended first.
            RpcFailed: The procedure raised.
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The name is not a non-empty string, or the time-out is not above 0.
            WrongThread: On the loop thread, or on a copy left by a fork.
        """
        conn, loop = self._conn, self._loop
        check_rpc_name(name)
        seconds = self._hub.shared.timeout if timeout is None else check_timeout(timeout)
        deadline = Deadline(seconds)
        loop.check_may_block("call")
        call = conn.prepare_call(name, payload)
        wait = Wait()
        loop.track(wait)
        try:
            try:
                self._outbox.put(
                    len(call.data), deadline, f"call {name!r}", conn.begin_call, call, wait.settle
                )
            except ConnectionNotReady:
                raise disconnected_error(name, 1006, "the server has stopped", sent=False) from None
            if not wait.wait(deadline.left()):
                raise timeout_error(name, seconds)
            return wait.outcome()
        except BaseException:
            if wait.error is None:  # not failed by its connection: it may be pending
                loop.post(conn.forget_call, call.stamp)
            raise
        finally:
            loop.untrack(wait)

    def drop(self, reason: str = Reason.BY_SERVER) -> None:
        """Close this connection with 1000 and ``reason``, without waiting.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        self._loop.post(self._conn.close, CloseCode.NORMAL_CLOSURE, reason)


class ClientIdentity(IdentityFace[Connection]):
    """One user of a blocking server, with all devices. Any thread."""

    __slots__ = ("_hub", "_loop", "_outbox")

    def __init__(self, loop: LoopThread, outbox: Outbox, hub: Hub, user: User) -> None:
        super().__init__(user)
        self._loop = loop
        self._outbox = outbox
        self._hub = hub

    def send(self, type: Any, payload: Any = None) -> int:
        """Send to every device of this user.

        Returns:
            How many devices the message was handed to.

        Raises:
            NotSerializable: The payload cannot be packed; nothing was sent.
            ValueError: The type is empty or belongs to the library.
            WrongThread: On a copy left by a fork.
        """
        message = self._hub.pack(type, payload)
        return post(self._outbox, self._hub, message, list(self._user.devices.values()))

    def drop(self, reason: str = Reason.BY_SERVER) -> int:
        """Close every connection of this user with 1000 and ``reason``, without waiting.

        Returns:
            How many connections that are.

        Raises:
            WrongThread: On a copy left by a fork.
        """
        self._loop.check_process()
        devices = list(self._user.devices.values())
        self._loop.post(self._hub.drop, devices, reason)
        return len(devices)
