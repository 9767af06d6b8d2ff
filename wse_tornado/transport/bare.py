"""The bare-socket way: frames straight from and to a plain TCP socket.

After Tornado has done the handshake, its stream hands the socket over (`take_socket`). One parse
loop runs over each chunk that arrives, and all that its handlers send leaves in one write. It must
not know about users, calls or handlers.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import cast

from tornado.iostream import IOStream, StreamClosedError

from .base import LoopIO, Receiver, SharedMessage, Transport, cut_reason
from .frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Event,
    FrameError,
    FrameParser,
    Masker,
    close_payload,
    encode_frame,
    parse_close,
)

__all__ = ["BareTransport", "bare_transport", "take_idle_socket", "take_socket"]

ABNORMAL = 1006  # RFC 6455 7.1.5: the connection ended without a close frame
MAX_EARLY = 1024 * 1024  # bytes that may come with the handshake
FLUSH_SIZE = 65536  # bytes gathered in a batch before they are written all the same

_masker = Masker()


def take_socket(stream: IOStream) -> tuple[socket.socket, bytes] | None:
    """Take the socket out of a Tornado stream that nobody reads.

    Returns:
        A duplicate of its socket and what had been read from it, or None where the stream has
        to stay in charge: it is not plain TCP, still writing, or closed, or the process has no
        file descriptor left. On success the stream is closed.
    """
    if type(stream) is not IOStream or stream.closed() or stream.writing():
        return None
    duplicate = _duplicate(stream)
    if duplicate is None:
        return None
    data = b""
    while True:
        early = cast("asyncio.Future[bytes]", stream.read_bytes(FLUSH_SIZE, partial=True))
        if not early.done():
            break
        try:
            data += early.result()
        except StreamClosedError:
            duplicate.close()
            return None
        if len(data) > MAX_EARLY:  # it floods before it has been let in
            duplicate.close()
            stream.close()
            return None
    early.add_done_callback(_retrieve)
    _let_go(stream)
    return duplicate, data


def take_idle_socket(stream: IOStream) -> socket.socket | None:
    """The same for a stream on which Tornado waits for the first byte."""
    if type(stream) is not IOStream or stream.closed() or stream.writing():
        return None
    duplicate = _duplicate(stream)
    if duplicate is not None:
        _let_go(stream)
    return duplicate


def _duplicate(stream: IOStream) -> socket.socket | None:
    try:
        duplicate = stream.socket.dup()
    except OSError:  # no file descriptor is left; what there is goes on
        return None
    try:
        duplicate.setblocking(False)
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:  # the peer is gone
        duplicate.close()
        return None
    return duplicate


def _let_go(stream: IOStream) -> None:
    stream.set_close_callback(None)
    stream.close()


def _retrieve(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()


class BareTransport(Transport):
    """A WebSocket on a plain socket; make one with `bare_transport`.

    Args:
        sock: The connected socket; asyncio reads it, this class writes it.
        receiver: What it talks to.
        is_client: Whether this end masks.
        max_message_size: Bytes of the largest message.
        close_timeout: Seconds the peer has to answer a close frame.
        io: What the sockets of the loop share.
        shared: Whether other threads write, too (see `send_from_thread`).
        early: What had been read from the socket before.
    """

    __slots__ = (
        "_broken",
        "_close_timeout",
        "_closing",
        "_cutter",
        "_early",
        "_held_events",
        "_io",
        "_is_client",
        "_lock",
        "_loop",
        "_lost",
        "_out",
        "_out_size",
        "_parser",
        "_paused",
        "_pong_waits",
        "_said_close",
        "_sock",
        "_socket_transport",
        "_verdict",
        "finished",
        "receiver",
        "thread_bytes",
        "thread_messages",
    )

    def __init__(
        self,
        sock: socket.socket,
        receiver: Receiver,
        *,
        is_client: bool,
        max_message_size: int,
        close_timeout: float,
        io: LoopIO,
        shared: bool = False,
        early: bytes = b"",
    ) -> None:
        self.bytes_in = self.bytes_out = 0
        self.thread_bytes = self.thread_messages = 0  # sent from threads; under the lock
        self.congested = False  # asyncio's buffer holds something
        self._sock = sock
        self.receiver = receiver
        self._is_client = is_client
        self._parser = FrameParser(masked=not is_client, max_message_size=max_message_size)
        self._close_timeout = close_timeout
        self._io = io
        self._lock = threading.Lock() if shared else None
        self._loop = asyncio.get_running_loop()
        self._socket_transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._paused = False
        self._held_events: list[Event] | None = None
        self._closing = False  # no message goes out or comes in any more
        self._said_close = False
        self._broken = False  # a write failed
        self._early = early
        self._pong_waits: bytes | None = None
        self._lost = False
        self._verdict: tuple[int, str] | None = None
        self._cutter: asyncio.TimerHandle | None = None
        self.finished: asyncio.Future[None] = self._loop.create_future()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio reads the socket from now on."""
        self._socket_transport = cast(asyncio.Transport, transport)
        self._io.open.add(self)
        # Any leftover counts as congestion, so that nothing can overtake it.
        self._socket_transport.set_write_buffer_limits(high=0)
        self.flush()
        if self._closing:  # somebody was quicker
            self._close_socket()
        elif self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """One chunk, any number of frames."""
        self.bytes_in += len(data)
        parser = self._parser
        events = parser.feed(data)
        if self._held_events is not None:
            self._held_events.extend(events)
        elif events:
            self._handle(events)
        if parser.error is not None and not self._held_events:
            self._fail(parser.error)

    def _handle(self, events: list[Event]) -> None:
        io = self._io
        io.depth += 1
        done = 0
        try:
            message_received = self.receiver.message_received
            for opcode, payload in events:
                if self._paused and not self._closing:
                    self._held_events = events[done:]
                    return
                done += 1
                if opcode > BINARY:
                    self._control(opcode, cast(bytes, payload))
                elif not self._closing:
                    message_received(payload)
        finally:
            io.depth -= 1
            if not io.depth:
                dirty = io.dirty
                if len(dirty) == 1 and dirty[0] is self:  # the common case, a step shorter
                    dirty.clear()
                    self.flush()
                elif dirty:
                    io.flush()

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.receiver.sign_of_life()
            self._pong(payload)
        elif opcode == PONG:
            self.receiver.pong_received(payload)
        else:
            try:
                code, reason = parse_close(payload)
            except FrameError as exc:
                self._fail(exc)
                return
            if self._verdict is None:
                self._verdict = (code, reason)
            self._stop_sending()
            if not self._said_close:
                self._said_close = True
                self._write(self._frame(CLOSE, payload[:2]))
            self._close_socket()

    def _pong(self, payload: bytes) -> None:
        """Answer a ping; of pings that a slow reader has not let us answer, the last
        (RFC 6455 5.5.3), so that a flood of them does not fill the memory."""
        if self._said_close:
            return
        if self.congested:
            self._pong_waits = payload
        else:
            self._write(self._frame(PONG, payload))

    def eof_received(self) -> bool:
        """The peer will send nothing more."""
        return False  # let asyncio close

    def pause_writing(self) -> None:
        """asyncio could not write everything."""
        self.congested = True

    def resume_writing(self) -> None:
        """asyncio has written everything."""
        self.congested = False
        payload, self._pong_waits = self._pong_waits, None
        if payload is not None:
            self._pong(payload)
        self.receiver.send_buffer_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is about to be closed."""
        if self._lost:
            return
        self._lost = True
        self._io.open.discard(self)
        self._stop_sending()
        self._out.clear()
        self._out_size = 0
        if self._cutter is not None:
            self._cutter.cancel()
        code, reason = self._verdict or (ABNORMAL, "")
        self.receiver.connection_lost(code, reason)
        if not self.finished.done():
            self.finished.set_result(None)

    # -- our side

    @property
    def buffered(self) -> int:
        transport = self._socket_transport
        if not self.congested or transport is None:
            return 0
        return transport.get_write_buffer_size() + self._out_size

    def send(self, payload: bytes, binary: bool) -> None:
        if not self._closing:
            mask = _masker() if self._is_client else None
            self._write(encode_frame(BINARY if binary else TEXT, payload, mask))

    def send_shared(self, message: SharedMessage) -> None:
        if self._closing:
            return
        frame = message.frame
        if frame is None or self._is_client:
            frame = self._frame(BINARY if message.binary else TEXT, message.payload)
            if not self._is_client:
                message.frame = frame
        self._write(frame)

    def send_from_thread(self, payload: bytes, binary: bool) -> bool:
        """Send from another thread; only transports made with ``shared=True`` do.

        What the system does not take at once is left to the loop, in order.
        """
        lock = self._lock
        if lock is None:
            return False
        frame = self._frame(BINARY if binary else TEXT, payload)
        with lock:
            if self._closing or self.congested or self._out or self._broken:
                return False
            try:
                sent = self._sock.send(frame)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self._broken = True
                return True  # as lost as what the peer's system had taken
            self.thread_messages += 1
            self.thread_bytes += len(frame)
            if sent < len(frame):
                # The loop's next write, whoever makes it, begins with the rest.
                self._out.insert(0, frame[sent:])
                self._out_size += len(frame) - sent
                self._loop.call_soon_threadsafe(self.flush)
            return True

    def ping(self, payload: bytes) -> None:
        if not self._closing:
            self._write(self._frame(PING, payload))

    def pause_reading(self) -> None:
        if not self._paused and not self._closing:
            self._paused = True
            if self._socket_transport is not None:
                self._socket_transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            # Soon, not now: who resumes may be in the midst of something.
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Hand out what was held back, then read on."""
        events, self._held_events = self._held_events, None
        if events:
            self._handle(events)
        if self._held_events is None and self._parser.error is not None:
            self._fail(self._parser.error)
        if not self._paused and self._socket_transport is not None and not self._lost:
            self._socket_transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        if self._said_close or self._lost:
            return
        frame = self._frame(CLOSE, close_payload(code, cut_reason(reason)))  # may raise: first
        self._stop_sending()
        self._said_close = True
        self._verdict = self._verdict or (code, reason)
        self._write(frame)
        self._cutter = self._loop.call_later(self._close_timeout, self.abort)
        if self._paused:
            self.resume_reading()

    def abort(self) -> None:
        self._stop_sending()
        if self._socket_transport is not None:
            self._socket_transport.abort()

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        return encode_frame(opcode, payload, _masker() if self._is_client else None)

    def _stop_sending(self) -> None:
        """No message goes out any more, from any thread, once this returns."""
        if self._lock is None:
            self._closing = True
        else:
            with self._lock:
                self._closing = True

    def _write(self, frame: bytes) -> None:
        """Write now, or at the end of the batch. Loop thread only."""
        self.bytes_out += len(frame)
        if self._io.depth:
            if not self._out:
                self._io.dirty.append(self)
            self._out.append(frame)
            self._out_size += len(frame)
            if self._out_size >= FLUSH_SIZE:
                self.flush()
        elif self._lock is None and not self._out and self._socket_transport is not None:
            self._write_now(frame)
        else:
            self._out.append(frame)
            self._out_size += len(frame)
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        lock = self._lock
        if lock is not None:
            lock.acquire()
        try:
            out = self._out
            if out and self._socket_transport is not None:
                data = out[0] if len(out) == 1 else b"".join(out)
                out.clear()
                self._out_size = 0
                self._write_now(data)
        finally:
            if lock is not None:
                lock.release()

    def _write_now(self, data: bytes) -> None:
        transport = self._socket_transport
        if self._broken or self._lost or transport is None:
            return
        if not self.congested:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                # The peer is gone. The reading side will find out, after what it sent before.
                self._broken = True
                return
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def _close_socket(self) -> None:
        """Close after what is written; at the latest when the peer takes nothing any more."""
        self.flush()
        if self._cutter is None:
            self._cutter = self._loop.call_later(self._close_timeout, self.abort)
        if self._socket_transport is not None:
            self._socket_transport.close()

    def _fail(self, error: FrameError) -> None:
        """The peer broke a rule of RFC 6455: say why, and cut."""
        if self._lost or self._broken:
            return
        self._stop_sending()
        if self._verdict is None:
            self._verdict = (error.code, error.reason)
        if not self._said_close:
            self._said_close = True
            self._write(self._frame(CLOSE, close_payload(error.code, error.reason)))
        self._close_socket()


class _ChunkTransport(BareTransport, asyncio.Protocol):
    """For loops that make each chunk themselves, as uvloop does well."""

    __slots__ = ()


class _BufferTransport(BareTransport, asyncio.BufferedProtocol):
    """For asyncio's own loops, which would allocate 256 KiB anew for every read."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._io.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much has been read."""
        self.data_received(bytes(self._io.read_buffer[:nbytes]))


def bare_transport(
    sock: socket.socket,
    receiver: Receiver,
    *,
    is_client: bool,
    max_message_size: int,
    close_timeout: float,
    io: LoopIO,
    shared: bool = False,
    early: bytes = b"",
) -> _ChunkTransport | _BufferTransport:
    """The `BareTransport` that fits the running loop; see there."""
    buffers = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    return (_BufferTransport if buffers else _ChunkTransport)(
        sock,
        receiver,
        is_client=is_client,
        max_message_size=max_message_size,
        close_timeout=close_timeout,
        io=io,
        shared=shared,
        early=early,
    )
