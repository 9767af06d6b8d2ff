"""Both ends of an open connection: read, route, answer, call, stay alive, end once.

``server_connection.py`` and ``client_connection.py`` add how a connection gets in and who is told.
One message goes ``message_received`` → ``_route`` → ``_deliver`` (a channel message), ``_serve`` (a
call) or ``PendingCalls`` (an answer). Loop thread only, unless a method says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from ..errors import (
    CloseCode,
    ErrorCode,
    NotSerializable,
    ProtocolError,
    Reason,
    RpcError,
    WseError,
    origin_of,
    printable,
    repr_of,
    text_of,
)
from ..events import Handler
from ..protocol import RESERVED_PREFIX, Message, encode
from ..rpc import (
    PendingCalls,
    Resolve,
    disconnected_error,
    new_stamp,
    payload_from_error,
    timeout_error,
)
from ..transport.base import SharedMessage, Transport
from .dispatch import Lane
from .inbox import Inbox
from .shared import Shared, handler_error, tell_error

__all__ = ["BaseConnection", "Life", "PackedCall", "TokenBucket"]

OVERFLOW = 10  # times max_queue: where a queue ends that may not pause reading
PING_PAYLOAD = b"?"  # tells the answer from pongs that nobody asked for


class Life(Enum):
    """Where a connection stands for the program. Its socket closes somewhat after ENDED."""

    OPENING = "opening"  # not let in yet
    READY = "ready"
    ENDED = "ended"


# Looking a member up in its enum costs as much as a call does on some Pythons.
_READY = Life.READY
_ENDED = Life.ENDED


def _is_failure(exc: BaseException) -> bool:
    """Whether a procedure failed, rather than answered with an error of its own. A nested call's
    RpcNotRegistered is a failure: the caller is not told which procedure is missing."""
    if isinstance(exc, WseError):
        return exc.code == ErrorCode.RP_NOT_REGISTERED
    return not isinstance(exc, asyncio.CancelledError)


class TokenBucket:
    """How many messages may come: ``rate`` a second on average, ``burst`` at once.

    Times are those of ``time.monotonic``.
    """

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled = now

    def take(self, now: float) -> bool:
        """Take one token. False if there is none."""
        tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True


class PackedCall(NamedTuple):
    """A call that is ready to be sent."""

    rpc: str
    stamp: str
    data: bytes
    binary: bool


class BaseConnection(ABC):
    """One open connection, seen from either end.

    Args:
        shared: What the connections of this server or client share.
        lane: Where its handlers run, in order; by default one of its own.
        first_args: What handlers are given before the payload.
        inbox: Where messages go that no handler takes, to be received; a server has none.

    Attributes:
        life: Where it stands.
        ended_with: The close code and reason, once it is ENDED.
        pending: Calls made from here.
        serving: How many calls of the peer run here.
        latency: Seconds that the last ping took.
    """

    def __init__(
        self,
        shared: Shared[Any, Any],
        *,
        lane: Lane | None = None,
        first_args: tuple[Any, ...] = (),
        inbox: Inbox | None = None,
    ) -> None:
        self._shared = shared
        self._counters = shared.counters
        self._unpack = shared.protocol.unpack
        self._roles = shared.roles
        self._first_args = first_args
        self._inbox = inbox
        self.pending = PendingCalls()
        self.life = Life.OPENING
        self.ended_with: tuple[int, str] = (CloseCode.ABNORMAL_CLOSURE, "")
        self.latency: float | None = None
        self._send_limit = shared.limits.max_send_buffer
        self.serving = 0
        self.lane: Lane = lane or shared.dispatcher.lane(self._handler_failed)
        self._bucket: TokenBucket | None = None  # a server may limit the rate of messages
        self._paused = False
        self._pinged = 0.0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._transport: Transport | None = None

    # -- what the two ends add

    @abstractmethod
    def _before_ready(self, role: str | None, type: Any, payload: Any) -> None:
        """A message arrived before the connection was ready."""

    def _may_decode(self, data: str | bytes) -> bool:
        """Whether a message that arrived before the connection was ready is to be decoded."""
        return True

    @abstractmethod
    def _unheard(self, type: Any, payload: Any) -> None:
        """A message arrived that no handler takes."""

    @abstractmethod
    def _on_end(self, code: int, reason: str) -> None:
        """The connection is over: change the records of the layers above, then tell."""

    def _bad_message(self, error: WseError) -> None:
        """The peer sent what the wire does not allow: report it and close."""
        self._report(error)
        self.close(CloseCode.NORMAL_CLOSURE, Reason.PROTOCOL_ERR)

    def _report(self, error: WseError) -> None:
        """A problem without a caller to raise in."""
        shared = self._shared
        # Server: (error, conn); client: (error).
        args = (error, *self._first_args)
        tell_error(self.lane, shared.when.error, shared.logger, self, *args)

    # -- in

    def attach(self, transport: Transport) -> None:
        """Begin: from now on messages may arrive."""
        self._transport = transport
        if self._shared.limits.heartbeat:
            self._beat_in(self._shared.limits.heartbeat)

    def message_received(self, data: str | bytes) -> None:
        """One message from the transport."""
        if self.life is not _READY and (self.life is _ENDED or not self._may_decode(data)):
            return
        self._counters.messages_in += 1
        if self._bucket is not None and not self._bucket.take(time.monotonic()):
            self._cut(CloseCode.POLICY_VIOLATION, Reason.RATE_LIMIT)
            return
        try:
            type, payload, stamp = self._unpack(data)
            role = self._roles.get(type)
        except Exception as exc:
            error = ProtocolError(
                ErrorCode.MESSAGE_PROCESSING_ERROR,
                {"origin": origin_of(exc)},
                f"a message does not decode as {self._shared.protocol.name}: {text_of(exc)}",
            )
            error.__cause__ = exc
            self._bad_message(error)
            return
        if self.life is _READY:
            self._route(role, type, payload, stamp)
        else:
            self._before_ready(role, type, payload)

    def _route(self, role: str | None, type: Any, payload: Any, stamp: Any) -> None:
        if role is None:
            if not stamp:
                if type is None or type == "":
                    self._violation("a message has neither type nor stamp")
                else:
                    self._deliver(type, payload)
            elif isinstance(stamp, str):
                self._serve(type, payload, stamp)
            else:
                self._odd_stamp(type, payload, stamp)
        elif role == "response" and stamp:
            if self.pending.resolve(stamp, payload):
                self._counters.calls_ok += 1
        elif role == "response_error" and stamp:
            if self.pending.reject(stamp, payload):
                self._counters.calls_failed += 1
        else:
            self._violation(f"a message of the type {role!r} makes no sense now")

    def _odd_stamp(self, type: Any, payload: Any, stamp: Any) -> None:
        self._violation("a stamp is not a string")

    def _violation(self, what: str) -> None:
        self._bad_message(
            ProtocolError(ErrorCode.PROTOCOL_VIOLATION, {}, f"protocol violation: {what}")
        )

    def _deliver(self, type: Any, payload: Any) -> None:
        handlers = self._shared.channel.take(type)
        if not handlers:
            self._unheard(type, payload)
            self._check_queue()
            return
        if self._inbox is not None:  # somebody may wait for this type, beside its handlers
            self._inbox.offer(Message(type, payload), keep=False)
        args = (*self._first_args, payload)
        lane = self.lane
        for handler in handlers:
            lane.post(handler, args)
        if not self._paused and lane.waiting >= self._shared.limits.max_queue:
            self._pause()

    def _is_reserved(self, type: Any) -> bool:
        """Whether the type is one that only the library may use; then the peer broke the wire."""
        if isinstance(type, str) and type.startswith(RESERVED_PREFIX):
            self._violation(f"the type {type!r} belongs to the library and is unknown")
            return True
        return False

    def _check_queue(self) -> None:
        """After what the peer caused to be queued, other than by a message for a handler."""
        if (
            self.life is not _ENDED
            and not self._paused
            and (
                self.lane.waiting >= self._shared.limits.max_queue
                or (self._inbox is not None and self._inbox.full)
            )
        ):
            self._pause()

    def _pause(self) -> None:
        limits = self._shared.limits
        if self.lane.waiting >= OVERFLOW * limits.max_queue or (
            self._inbox is not None and self._inbox.overflows(OVERFLOW)
        ):
            self._cut(CloseCode.TRY_AGAIN_LATER, Reason.QUEUE_OVERFLOW)
            return
        if self._must_read() or self._transport is None:
            return
        # A thread may begin a call right now. It registers the call and then reads `_paused`; we
        # set `_paused` and then read `pending`. So at least one of the two sees the other.
        self._paused = True
        if self._must_read():
            self._paused = False
            return
        self._transport.pause_reading()
        if self.lane.waiting >= limits.max_queue:
            self.lane.notify_when_below(limits.max_queue // 2, self._resume)

    def _must_read(self) -> bool:
        """Whether somebody here waits for what may come behind the messages in the queue."""
        return bool(self.pending) or (self._inbox is not None and self._inbox.awaited)

    def read_on(self) -> None:
        """Resume reading: somebody waits for what may not have been read."""
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.heard = time.monotonic()  # the silence was our own
            self._transport.resume_reading()

    # -- calls served here

    def _serve(self, name: Any, payload: Any, stamp: str) -> None:
        shared = self._shared
        legacy = stamp.startswith(shared.legacy_prefix)
        procedure = shared.procedures.by_name.get(name)
        if procedure is None:
            if isinstance(name, str) and name.startswith(RESERVED_PREFIX):
                self._violation(f"a call of {name!r}, which belongs to the library")
                return
            self._counters.served_unknown += 1
            self._log_unknown(name)
            self._answer_error({"code": str(ErrorCode.RP_NOT_REGISTERED)}, stamp, legacy)
            return
        if self.serving >= shared.limits.max_pending_calls:
            self._counters.served_refused += 1
            self._answer_error({"code": str(ErrorCode.TOO_MANY_CALLS)}, stamp, legacy)
            return
        self.serving += 1
        shared.dispatcher.beside(
            procedure,
            (*self._first_args, payload),
            partial(self._answer, name, payload, stamp, legacy),
        )

    def _answer(
        self,
        name: str,
        payload: Any,
        stamp: str,
        legacy: bool,
        result: Any,
        exc: BaseException | None,
    ) -> None:
        self.serving -= 1
        for notify in self._shared.on_served:
            notify()
        if self.life is _ENDED:
            if exc is not None and _is_failure(exc):
                self._call_failed(name, exc)
            return
        if exc is None:
            try:
                if legacy:
                    self._send(stamp, result, {"success": True})
                else:
                    self._send(self._shared.types.response, result, stamp)
                self._counters.served_ok += 1
                return
            except NotSerializable as unpackable:
                exc = TypeError(f"the result of {name!r} cannot be packed: {unpackable}")
            except WseError as refused:  # the protocol's own word
                exc = refused
        if isinstance(exc, asyncio.CancelledError):
            exc = WseError(ErrorCode.RP_EXECUTION_FAILED, {}, f"{name!r} was cancelled")
        elif _is_failure(exc):
            self._call_failed(name, exc)
        self._counters.served_failed += 1
        error = payload_from_error(
            name, exc, expose=self._shared.expose_errors, call_payload=payload
        )
        self._answer_error(error, stamp, legacy)

    def _answer_error(self, error: dict[str, Any], stamp: str, legacy: bool) -> None:
        try:
            self._send_error(error, stamp, legacy)
        except WseError as exc:
            self._report(exc)
            self._send_error({"code": error["code"], "details": {}}, stamp, legacy)

    def _send_error(self, error: dict[str, Any], stamp: str, legacy: bool) -> None:
        if legacy:
            self._send(stamp, None, error)
        else:
            self._send(self._shared.types.response_error, error, stamp)

    def _log_unknown(self, name: Any) -> None:
        logger = self._shared.logger
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("unknown procedure %s was called", printable(repr_of(name)))

    def _call_failed(self, name: str, exc: BaseException) -> None:
        error = WseError(
            ErrorCode.RP_EXECUTION_FAILED,
            {"rpc": name, "origin": origin_of(exc)},
            f"the procedure {name!r} raised {type(exc).__name__}: {text_of(exc)}",
        )
        error.__cause__ = exc
        self._report(error)
        self._check_queue()

    def _handler_failed(self, handler: Handler, exc: BaseException) -> None:
        self._report(handler_error(handler, exc))

    # -- out

    def _send(self, type: Any, payload: Any, stamp: Any = None) -> None:
        data, binary = encode(self._shared.protocol, type, payload, stamp)
        self.send_packed(data, binary)

    def send_packed(self, data: bytes, binary: bool) -> bool:
        """Hand a packed message to the socket. False if the connection is over."""
        transport = self._transport
        if self.life is _ENDED or transport is None:
            return False
        if transport.congested and self._overfills(transport, len(data)):
            self.end_slow()
            return False
        self._counters.messages_out += 1
        transport.send(data, binary)
        return True

    def send_shared(self, message: SharedMessage) -> bool:
        """Hand over a message that goes to many. False if the connection is over, or too slow:
        then the caller ends it with `end_slow`, when all others have their message."""
        transport = self._transport
        if self.life is _ENDED or transport is None:
            return False
        if transport.congested and self._overfills(transport, len(message.payload)):
            return False
        self._counters.messages_out += 1
        transport.send_shared(message)
        return True

    def _overfills(self, transport: Transport, size: int) -> bool:
        """Whether so many bytes more are too many for the send buffer."""
        waiting = transport.buffered + size
        if waiting <= self._send_limit:
            return False
        # What is larger than the bound by itself goes out if nothing waits ahead of it. Then it
        # must not be held against what follows it, or a large answer would end a connection
        # whose peer reads as fast as it can.
        first, left = transport.first_waiting
        return first <= self._send_limit or waiting - left > self._send_limit

    def end_slow(self) -> None:
        """The peer does not keep up: end the connection rather than wait or grow."""
        self._cut(CloseCode.TRY_AGAIN_LATER, Reason.SLOW_CONSUMER)

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.buffered if self._transport is not None else 0

    @property
    def taken(self) -> int:
        """Bytes that the peer's system has taken."""
        return self._transport.taken if self._transport is not None else 0

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent by the connection that is open now."""
        transport = self._transport
        if transport is None:
            return 0, 0
        return transport.bytes_in, transport.bytes_out + transport.thread_bytes

    @property
    def sent_from_threads(self) -> int:
        """Messages sent without the loop by the connection that is open now."""
        return self._transport.thread_messages if self._transport is not None else 0

    # -- calls made from here

    def prepare_call(self, rpc: str, payload: Any, *, legacy: bool = False) -> PackedCall:
        """Make the stamp of a call and pack it. Any thread.

        Raises:
            NotSerializable: The payload cannot be packed.
        """
        stamp = new_stamp(f"{self._shared.legacy_prefix}{rpc}:" if legacy else "")
        data, binary = encode(self._shared.protocol, rpc, payload, stamp)
        return PackedCall(rpc, stamp, data, binary)

    def begin_call(self, call: PackedCall, resolve: Resolve) -> None:
        """Send a call; ``resolve`` is called once, unless the stamp is forgotten first."""
        if self.life is _ENDED:
            resolve(None, disconnected_error(call.rpc, *self.ended_with, sent=False))
            return
        if len(self.pending) >= self._shared.limits.max_pending_calls:
            resolve(None, self._too_many_calls(call.rpc))
            return
        if self._paused:
            self._resume()
        if self.send_packed(call.data, call.binary):
            self.pending.add(call.rpc, call.stamp, resolve)
        else:
            resolve(None, disconnected_error(call.rpc, *self.ended_with, sent=False))

    def _too_many_calls(self, rpc: str) -> RpcError:
        limit = self._shared.limits.max_pending_calls
        return RpcError(
            rpc,
            ErrorCode.TOO_MANY_CALLS,
            {"rpc": rpc, "pending": limit},
            f"{rpc!r} was not called: {limit} calls wait for their answers already",
        )

    def recover_call(self, call: PackedCall) -> None:
        """The thread that made it was interrupted, perhaps while it was sending."""
        if self._transport is not None:
            self._transport.recover(call.data)
        self.forget_call(call.stamp)

    def forget_call(self, stamp: str) -> None:
        """Nobody waits for that answer any more."""
        if self.pending.forget(stamp):
            self._counters.calls_forgotten += 1

    def begin_call_from_thread(self, call: PackedCall, resolve: Resolve) -> bool:
        """Send a call from a thread that is not the loop's, if nothing is queued ahead.

        Whoever ends the connection first stops the transport and then fails what is pending
        (`_end`). So a call that was sent is failed with its connection, and one that comes too
        late is not sent.

        Returns:
            False where `begin_call` has to do it, on the loop; then nothing was sent.
        """
        transport, pending = self._transport, self.pending
        if (
            transport is None
            or self.life is not _READY
            or self._paused
            or len(pending) >= self._shared.limits.max_pending_calls
        ):
            return False
        pending.add(call.rpc, call.stamp, resolve)
        # Check again now that the call is registered: either `_pause` sees it in `pending`, or we
        # see `_paused` here.
        if not self._paused and transport.send_from_thread(call.data, call.binary):
            return True
        pending.forget(call.stamp)
        return False

    async def call_and_wait(
        self, rpc: str, payload: Any, timeout: float, *, legacy: bool = False
    ) -> Any:
        """Call a procedure of the other end and wait for its answer."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Any] = loop.create_future()

        def resolve(result: Any, error: WseError | None) -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(result)
            else:
                answered.set_exception(error)

        call = self.prepare_call(rpc, payload, legacy=legacy)
        self.begin_call(call, resolve)
        timer = loop.call_later(timeout, lambda: resolve(None, timeout_error(rpc, timeout)))
        try:
            return await answered
        finally:
            timer.cancel()
            self.forget_call(call.stamp)

    # -- life

    def pong_received(self, payload: bytes) -> None:
        """The peer answered a ping."""
        if self._pinged and payload == PING_PAYLOAD:  # one nobody asked for tells no latency
            self.latency = time.monotonic() - self._pinged
            self._pinged = 0.0
            if self._heartbeat is not None and self.life is not _ENDED:
                self._heartbeat.cancel()
                self._beat_in(self._shared.limits.heartbeat)

    def send_buffer_drained(self) -> None:  # noqa: B027 - of no interest to a server
        """What waited to be sent has left."""

    def _beat_in(self, seconds: float) -> None:
        self._heartbeat = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        transport = self._transport
        if transport is None:
            return
        limits = self._shared.limits
        if self._paused:
            # Nothing is read, so that nothing is to be expected; and the peer, whose pings wait
            # with all the rest, must not take our silence for the end.
            transport.keep_alive()
            self._beat_in(limits.heartbeat)
            return
        now = time.monotonic()
        silent = now - transport.heard
        if silent < limits.heartbeat:
            if transport.in_message:
                # The peer's pings wait behind a message that is long on its way, and we have
                # nothing to say before it is here.
                transport.keep_alive()
            self._beat_in(max(limits.heartbeat - silent, 0.001))
            return
        self._pinged = now
        transport.ping(PING_PAYLOAD)
        self._await_answer(transport.taken)

    def _await_answer(self, taken: int) -> None:
        self._heartbeat = asyncio.get_running_loop().call_later(
            self._shared.limits.heartbeat_timeout, self._check_answer, taken
        )

    def _check_answer(self, taken_before: int) -> None:
        transport = self._transport
        if transport is None:
            return
        taken = transport.taken
        if self._paused or transport.heard >= self._pinged:
            self._beat()
        elif taken > taken_before:
            self._await_answer(taken)  # the ping waits behind what is on its way
        else:
            self._cut(CloseCode.ABNORMAL_CLOSURE, Reason.HEARTBEAT)

    # -- the end

    def close(self, code: int, reason: str) -> None:
        """Close from this end: over at once for this side, with a close handshake for the peer."""
        if self.life is not _ENDED:
            if self._transport is not None:
                # `stop` waits for all connections, and must end whatever one of them does.
                self._transport.close(code, reason, patient=code != CloseCode.SERVICE_RESTART)
            self._end(code, reason)

    def abort(self) -> None:
        """Cut the socket without a close handshake, or in the middle of one."""
        if self._transport is not None:
            self._transport.abort()

    def _cut(self, code: int, reason: str) -> None:
        """End a connection whose peer does not take part: cut at once with 1006, else after a close
        frame and ``Limits.close_timeout`` at most."""
        if self.life is not _ENDED:
            if self._transport is not None:
                if code == CloseCode.ABNORMAL_CLOSURE:
                    self._transport.abort()
                else:
                    self._transport.close(code, reason, patient=False)
            self._end(code, reason)

    def connection_lost(self, code: int, reason: str) -> None:
        """The transport is gone."""
        self._end(code, reason)
        transport, self._transport = self._transport, None
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        if transport is not None:
            # A peer that did not keep up has been told of by its closing already.
            if transport.undelivered and self.ended_with[0] != CloseCode.TRY_AGAIN_LATER:
                self._report(
                    WseError(
                        ErrorCode.NOT_DELIVERED,
                        {"bytes": transport.undelivered},
                        f"{transport.undelivered} bytes that were sent before the closing were "
                        "not delivered: the other end took nothing any more",
                    )
                )
            self._counters.bytes_in += transport.bytes_in
            self._counters.bytes_out += transport.bytes_out + transport.thread_bytes
            self._counters.messages_out += transport.thread_messages

    def _end(self, code: int, reason: str) -> None:
        """Change all records first, then tell handlers and callers."""
        if self.life is _ENDED:
            return
        self.life = _ENDED
        code, reason = self.ended_with = (int(code), str(reason))
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        calls, self.pending = self.pending, PendingCalls()
        self._counters.calls_disconnected += len(calls)
        self._counters.closed(code, reason)
        try:
            self._on_end(code, reason)
        finally:  # whatever a handler raises, no caller is left waiting
            calls.fail_all(code, reason)
