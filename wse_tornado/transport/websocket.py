"""One WebSocket over a byte pipe: fragments, control frames, the close handshake, accounting.

After Tornado has done the handshake, a pipe moves the bytes (pipes.py). One parse loop runs over
each chunk that arrives, and all that its handlers send leaves in one write. It must not know about
users, calls or handlers.
"""

from __future__ import annotations

import asyncio
import enum
import time
from typing import cast

from ..entropy import new_mask
from .base import LoopIO, Receiver, SharedMessage, Transport, cut_reason
from .deflate import COMPRESS_FROM, Agreement, Deflater, Inflater
from .errors import FrameError
from .frames import (
    BINARY,
    CLOSE,
    COMPRESSED,
    PING,
    PONG,
    TEXT,
    Event,
    FrameParser,
    close_payload,
    encode_frame,
    parse_close,
)
from .pipes import Pipe, ThreadWrite

__all__ = ["State", "WebSocket"]

ABNORMAL = 1006  # RFC 6455 7.1.5: the connection ended without a close frame
FLUSH_SIZE = 65536  # bytes gathered in a batch before they are written all the same
# Bytes a second that count as progress of a connection that is closing: a peer that takes a byte
# now and then must not keep it open.
SLOWEST = 4096

_monotonic = time.monotonic


class State(enum.Enum):
    """How far a WebSocket has come (RFC 6455 4 and 7)."""

    OPEN = "open"
    CLOSING = "closing"  # our close frame is on its way, the peer's is waited for
    ENDING = "ending"  # nothing more is waited for: what is written leaves, then the pipe closes
    CLOSED = "closed"


_OPEN = State.OPEN


class WebSocket(Transport):
    """One end of a WebSocket.

    Args:
        pipe: The bytes; `start` begins to read it.
        receiver: What it talks to.
        is_client: Whether this end masks.
        max_message_size: Bytes of the largest message.
        close_timeout: Seconds without progress after which a connection that is closing is cut.
        io: What the sockets of the loop share.
        deflate: What was agreed on about compression, if anything.
    """

    __slots__ = (
        "_attempts",
        "_close_size",
        "_close_timeout",
        "_closer",
        "_cutter",
        "_deflater",
        "_first_end",
        "_first_size",
        "_held_events",
        "_io",
        "_is_client",
        "_left",
        "_loop",
        "_out",
        "_out_size",
        "_parser",
        "_patient",
        "_paused",
        "_pipe",
        "_pong_waits",
        "_state",
        "_turn",
        "_verdict",
        "finished",
        "receiver",
        "thread_bytes",
        "thread_messages",
        "undelivered",
    )

    def __init__(
        self,
        pipe: Pipe,
        receiver: Receiver,
        *,
        is_client: bool,
        max_message_size: int,
        close_timeout: float,
        io: LoopIO,
        deflate: Agreement | None = None,
    ) -> None:
        self.bytes_in = self.bytes_out = 0
        self.thread_bytes = self.thread_messages = 0  # sent from threads
        self.congested = False  # the pipe holds something
        self.heard = _monotonic()
        self.undelivered = 0
        self.receiver = receiver
        self._pipe = pipe
        self._closer = False  # it is this end that closes
        self._turn = pipe.turn
        self._attempts: dict[bytes, ThreadWrite] = {}  # by payload; of threads that write
        self._is_client = is_client
        self._deflater = Deflater(deflate) if deflate is not None else None
        self._parser = FrameParser(
            masked=not is_client,
            max_message_size=max_message_size,
            inflater=Inflater(deflate) if deflate is not None else None,
        )
        pipe.bind(self, self._parser)
        self._close_timeout = close_timeout
        self._io = io
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._out_size = 0
        self._first_size = self._first_end = 0
        self._paused = False
        self._held_events: list[Event] | None = None
        self._state = _OPEN
        self._pong_waits: bytes | None = None
        self._verdict: tuple[int, str] | None = None
        self._cutter: asyncio.TimerHandle | None = None
        self._patient = True
        self._left = 0  # bytes the peer had not taken when the cutter looked last
        self._close_size = 0  # of our close frame
        self.finished: asyncio.Future[None] = self._loop.create_future()

    def start(self, early: bytes = b"") -> None:
        """Begin to read; ``early`` came with the handshake."""
        self._io.open.add(self)
        if early:
            self.data_received(early)
        self._pipe.start()

    # -- the pipe's side

    def data_received(self, data: bytes) -> None:
        """One chunk, any number of frames."""
        self.heard = _monotonic()
        self.bytes_in += len(data)
        parser = self._parser
        events = parser.feed(data)
        if parser.error is None and self._held_events is None:  # the common case, a step shorter
            if events:
                self._handle(events)
        else:
            self._take(events)

    def frame_bytes_received(self, size: int) -> None:
        """Bytes of a large frame were read to its place."""
        self.heard = _monotonic()
        self.bytes_in += size
        self._take(self._parser.filled(size))

    def _take(self, events: list[Event]) -> None:
        if self._held_events is not None:
            self._held_events.extend(events)
        elif events:
            self._handle(events)
        if self._parser.error is not None and not self._held_events:
            self._fail(self._parser.error)

    def _handle(self, events: list[Event]) -> None:
        io = self._io
        io.depth += 1
        done = 0
        try:
            message_received = self.receiver.message_received
            for opcode, payload in events:
                if self._paused and self._state is _OPEN:
                    self._held_events = events[done:]
                    return
                done += 1
                if opcode > BINARY:
                    self._control(opcode, cast(bytes, payload))
                elif self._state is _OPEN:
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
            if self._state is _OPEN:
                # With code and reason: JavaScript peers learn their own reason from this
                # (docs/wire.md 5).
                self._say_close(payload)
            self._end()

    def _pong(self, payload: bytes) -> None:
        """Answer a ping; of pings that a slow reader has not let us answer, the last
        (RFC 6455 5.5.3), so that a flood of them does not fill the memory."""
        if self._state is not _OPEN:
            return
        if self.congested:
            self._pong_waits = payload
        else:
            self._write(self._frame(PONG, payload))

    def pipe_drained(self) -> None:
        """The system has taken everything."""
        self.congested = self._pipe.buffered > 0  # a thread may have been quick
        payload, self._pong_waits = self._pong_waits, None
        if payload is not None:
            self._pong(payload)
        self.receiver.send_buffer_drained()

    def pipe_eof(self) -> None:
        """The peer will send nothing more."""
        if self._state is _OPEN:
            self.abort()
        else:
            self._end()  # it answers nothing any more, but may still take what we wrote

    def pipe_lost(self) -> None:
        """The socket is closed."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._io.open.discard(self)
        if self._closer:
            self.undelivered = max(0, self._out_size + self._pipe.dropped - self._close_size)
        self._out.clear()
        self._out_size = 0
        self._held_events = None
        if self._cutter is not None:
            self._cutter.cancel()
        code, reason = self._verdict or (ABNORMAL, "")
        self.receiver.connection_lost(code, reason)
        if not self.finished.done():
            self.finished.set_result(None)

    # -- our side

    @property
    def buffered(self) -> int:
        return self._pipe.buffered + self._out_size if self.congested else 0

    @property
    def first_waiting(self) -> tuple[int, int]:
        taken = self.bytes_out + self.thread_bytes - self.buffered
        return self._first_size, max(0, self._first_end - taken)

    @property
    def taken(self) -> int:
        return self.bytes_out + self.thread_bytes - self._not_taken()

    @property
    def in_message(self) -> bool:
        return self._parser.in_message

    def send(self, payload: bytes, binary: bool) -> None:
        if self._state is _OPEN:
            opcode = BINARY if binary else TEXT
            if self._deflater is not None and len(payload) >= COMPRESS_FROM:
                opcode |= COMPRESSED
                payload = self._deflater.deflate(payload)
            self._write(encode_frame(opcode, payload, new_mask() if self._is_client else None))

    def send_shared(self, message: SharedMessage) -> None:
        deflater = self._deflater
        if self._is_client:
            self.send(message.payload, message.binary)
        elif deflater is not None and len(message.payload) >= COMPRESS_FROM:
            key = deflater.shared_key
            if key is None:
                self.send(message.payload, message.binary)
            elif self._state is _OPEN:
                if message.deflated is None:
                    message.deflated = {}
                frame = message.deflated.get(key)
                if frame is None:
                    opcode = COMPRESSED | (BINARY if message.binary else TEXT)
                    frame = encode_frame(opcode, deflater.deflate(message.payload))
                    message.deflated[key] = frame
                self._write(frame)
        elif self._state is _OPEN:
            frame = message.frame
            if frame is None:
                frame = encode_frame(BINARY if message.binary else TEXT, message.payload)
                message.frame = frame
            self._write(frame)

    def send_from_thread(self, payload: bytes, binary: bool) -> bool:
        """Send from another thread; only over pipes that have a turn to take.

        What the system does not take at once is left to the loop, in order. Never waits for the
        turn: who has it may be this very thread, interrupted by a signal. Where this is interrupted
        itself, `recover` puts things right.
        """
        turn = self._turn
        if turn is None or (self._deflater is not None and len(payload) >= COMPRESS_FROM):
            return False  # messages must be compressed in the order in which they leave
        attempt = self._attempts[payload] = ThreadWrite(
            self._frame(BINARY if binary else TEXT, payload)
        )
        taken = turn.take(attempt)
        if taken and self._state is _OPEN and not self.congested and not self._out:
            try:
                if self._pipe.write_from_thread(attempt):
                    self.thread_messages += 1
                    self.thread_bytes += len(attempt.frame)
                    turn.give()
                    self._attempts.pop(payload, None)
                    return True
            except OSError:
                pass  # the loop will find out
            if attempt.sent:
                self._loop.call_soon_threadsafe(self.recover, payload)
                return True
        if taken:
            turn.give()
        self._attempts.pop(payload, None)
        return False

    def recover(self, payload: bytes) -> None:
        """On the loop: finish what a thread has begun with this very payload, whether it left the
        rest to the loop or was interrupted."""
        attempt = self._attempts.pop(payload, None)
        turn = self._turn
        if attempt is None or turn is None or not turn.is_of(attempt):
            return
        if self._state is not State.CLOSED and self._pipe.finish_thread_write(attempt):
            self.thread_messages += 1
            self.thread_bytes += len(attempt.frame)
            if self._pipe.buffered and not self.congested:
                self._is_congested(len(attempt.frame))
        turn.give()
        self.flush()

    def ping(self, payload: bytes) -> None:
        if self._state is _OPEN:
            self._write(self._frame(PING, payload))

    def keep_alive(self) -> None:
        # Behind what waits it would say nothing that the bytes ahead of it do not say.
        if self._state is _OPEN and not self.congested:
            self._write(self._frame(PONG, b""))

    def pause_reading(self) -> None:
        if not self._paused and self._state is _OPEN:
            self._paused = True
            self._pipe.pause()

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
        if not self._paused and self._state is not State.CLOSED:
            self._pipe.resume()

    def close(self, code: int, reason: str, *, patient: bool = True) -> None:
        if self._state is not _OPEN:
            return
        payload = close_payload(code, cut_reason(reason))  # may raise: first
        self._verdict = self._verdict or (code, reason)
        self._patient = patient
        self._closer = True
        self._say_close(payload)
        self._state = State.CLOSING
        self._start_cutter()
        if self._paused:
            self.resume_reading()

    def abort(self) -> None:
        if self._state is not State.CLOSED:
            self._state = State.ENDING
            self._pipe.abort()

    def _frame(self, opcode: int, payload: bytes) -> bytes:
        return encode_frame(opcode, payload, new_mask() if self._is_client else None)

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
        elif self._turn is None and not self._out:
            if not self._pipe.write(frame) and not self.congested:
                self._is_congested(len(frame))
        else:
            self._out.append(frame)
            self._out_size += len(frame)
            self.flush()

    def _is_congested(self, size: int) -> None:
        """The pipe did not take all of what was written, of which ``size`` is the largest frame;
        with the turn taken."""
        self.congested = True
        self._first_size = size
        self._first_end = self.bytes_out + self.thread_bytes - self._out_size

    def flush(self) -> None:
        """Write what has been gathered."""
        turn = self._turn
        if turn is not None and not turn.take_on_loop():
            self._loop.call_soon(self.flush)  # see PATIENCE
            return
        try:
            out = self._out
            if out:
                data = out[0] if len(out) == 1 else b"".join(out)
                self._out_size = 0
                if not self._pipe.write(data) and not self.congested:
                    self._is_congested(max(map(len, out)))
                out.clear()
        finally:
            if turn is not None:
                turn.give()

    # -- the end

    def _say_close(self, payload: bytes) -> None:
        """Write our close frame, the last one from here."""
        frame = self._frame(CLOSE, payload)
        self._close_size = len(frame)
        self._state = State.ENDING  # from now on no thread begins to send
        self._write(frame)

    def _end(self, *, linger: bool = False) -> None:
        """Close the pipe after what is written; at the latest when the peer takes nothing."""
        if self._state is State.CLOSED:
            return
        self._state = State.ENDING
        self.flush()
        if self._out:  # a thread is writing
            self._loop.call_soon(lambda: self._end(linger=linger))
            return
        if self._cutter is None:
            self._start_cutter()
        self._pipe.finish(linger=linger)

    def _fail(self, error: FrameError) -> None:
        """The peer broke a rule of RFC 6455: say why, and cut."""
        if self._state in (State.ENDING, State.CLOSED):
            return
        if self._verdict is None:
            self._verdict = (error.code, error.reason)
        if self._state is _OPEN:
            self._patient = False
            self._say_close(close_payload(error.code, error.reason))
        self._end(linger=True)

    def _start_cutter(self) -> None:
        self._left = self._not_taken()
        self._cutter = self._loop.call_later(self._close_timeout, self._cut_or_wait)

    def _not_taken(self) -> int:
        """Bytes that the peer's system has not taken."""
        return self._out_size + self._pipe.buffered + self._pipe.unacknowledged

    def _cut_or_wait(self) -> None:
        left = self._not_taken()
        taken = self._left - left
        if self._patient and taken > 0 and taken >= min(self._left, SLOWEST * self._close_timeout):
            self._start_cutter()
        else:
            self.abort()
