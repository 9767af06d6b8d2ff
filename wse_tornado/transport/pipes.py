"""Byte pipes below a WebSocket: plain TCP, TLS, and a Tornado stream where neither can be had.

A pipe moves bytes and knows nothing of frames. `open_pipe` takes the socket out of the Tornado
stream that did the handshake; from then on the pipe reads and writes it itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from .frames import FrameParser

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

__all__ = ["Pipe", "PipeOwner", "StreamPipe", "TcpPipe", "TlsPipe", "open_pipe"]

READ_SIZE = 65536
# What is asked for as long as messages are small: the memory for more costs a microsecond.
SMALL_READ = 8192
RECORD_SIZE = 16384  # RFC 8446 5.1: the most a TLS record holds
BUDGET = 256 * 1024  # bytes taken from one TLS connection before others have their turn
TLS_WRITE_SIZE = 65536  # OpenSSL tells of no byte before all of a call have left
MAX_EARLY = 1024 * 1024  # bytes that may come with the handshake
# Seconds the loop sleeps where a thread is writing, before it goes on with something else. Such a
# thread may be interrupted by a signal handler that waits for the loop, so the loop must not wait.
PATIENCE = 0.0002
RESET_CHECK = 0.05  # seconds; how long a connection may seem open, see `TcpPipe._calls_once`
RETRY = 0.05  # seconds until a socket is written again for which the system had no memory
_NO_MEMORY = frozenset({errno.ENOBUFS, errno.ENOMEM})


class Turn:
    """Who may use a socket that threads write, too: the loop, or one attempt of a thread.

    Not a lock: a thread may be interrupted between any two bytecodes, and the loop must be able to
    tell that the one who has the turn is gone. Each step is one atomic operation of a dictionary.
    """

    __slots__ = ("_holder",)

    def __init__(self) -> None:
        self._holder: dict[str, object] = {}

    def take(self, who: object) -> bool:
        """Take the turn, if nobody has it."""
        return self._holder.setdefault("", who) is who

    def give(self) -> None:
        """Give it up."""
        self._holder.pop("", None)

    def is_of(self, who: object) -> bool:
        """Whether it is theirs now."""
        return self._holder.get("") is who

    def take_on_loop(self) -> bool:
        """Take it for the loop. False where a thread has it: try again in the next turn."""
        if self.take(self):
            return True
        time.sleep(PATIENCE)  # a thread has it for some microseconds only
        return self.take(self)


class ThreadWrite:
    """One attempt of a thread to write without the loop.

    Attributes:
        frame: What it writes.
        sent: Receives how much of it the system took, in the very operation that sends, so that it
            is known whatever interrupts the thread.
        begun: Whether the operation may have begun.
    """

    __slots__ = ("begun", "frame", "sent")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.sent: deque[int] = deque()
        self.begun = False


class PipeOwner(Protocol):
    """What a pipe talks to, on the loop thread."""

    def data_received(self, data: bytes) -> None:
        """A chunk arrived."""

    def frame_bytes_received(self, size: int) -> None:
        """So many bytes were read to where the parser wanted them (`FrameParser.room`)."""

    def pipe_drained(self) -> None:
        """Nothing waits to be written any more."""

    def pipe_eof(self) -> None:
        """The peer will send nothing more."""

    def pipe_lost(self) -> None:
        """The socket is closed. The last callback, made once."""


class Pipe(ABC):
    """One connected socket. Loop thread only, except where `write` says so.

    Attributes:
        turn: Taken by whoever reads or writes where threads write, too; else None.
        dropped: After the end: bytes that the system never took.
    """

    __slots__ = (
        "_eof",
        "_finishing",
        "_gone",
        "_linger",
        "_owner",
        "_parser",
        "_paused",
        "dropped",
        "turn",
    )

    turn: Turn | None

    def __init__(self) -> None:
        self.turn = None
        self.dropped = 0
        self._owner: PipeOwner | None = None
        self._parser: FrameParser | None = None
        self._paused = False
        self._eof = False
        self._finishing = False
        self._linger = False
        self._gone = False

    def bind(self, owner: PipeOwner, parser: FrameParser) -> None:
        """Say who is told, and who knows where bytes of large frames belong."""
        self._owner = owner
        self._parser = parser

    @abstractmethod
    def start(self) -> None:
        """Begin to read, unless paused."""

    @abstractmethod
    def write(self, data: bytes) -> bool:
        """Write now, or as soon as the system takes it. Where there is a turn, the caller has it.

        Returns:
            Whether nothing waits.
        """

    def write_from_thread(self, attempt: ThreadWrite) -> bool:
        """Write from a thread that has the turn. Whether the system took all of it.

        If not, `finish_thread_write` has to be called on the loop, with the turn still taken.

        Raises:
            OSError: Nothing of it was taken.
        """
        raise NotImplementedError  # only of pipes that have a turn

    def finish_thread_write(self, attempt: ThreadWrite) -> bool:
        """On the loop: what a thread has begun to write and not finished; it has the turn.

        Returns:
            Whether the frame has left, or will.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes that wait to be taken by the system."""

    @property
    def unacknowledged(self) -> int:
        """Bytes that the system holds until the peer's has taken them; 0 where that is unknown."""
        return 0

    @abstractmethod
    def pause(self) -> None:
        """Read nothing more."""

    @abstractmethod
    def resume(self) -> None:
        """Undo `pause`."""

    def finish(self, *, linger: bool) -> None:
        """Close in order when everything is written.

        Args:
            linger: Wait for the peer to close as well. Closing a socket that has unread data
                resets it, and the peer's system may then drop what we wrote last.
        """
        self._finishing = True
        self._linger = linger
        if not self.buffered:
            self._shut()

    @abstractmethod
    def _shut(self) -> None:
        """Say that nothing more comes, and close or wait for the peer."""

    @abstractmethod
    def abort(self) -> None:
        """Close now."""

    def _tell_lost(self) -> None:
        owner, self._owner = self._owner, None
        self._parser = None  # both refer to this pipe: leave no cycle
        if owner is not None:
            owner.pipe_lost()


class TcpPipe(Pipe):
    """A plain socket, read and written without anything between."""

    __slots__ = (
        "_blocked",
        "_calls_once",
        "_checking",
        "_fd",
        "_loop",
        "_out",
        "_read_size",
        "_reading",
        "_recv",
        "_send",
        "_sock",
        "_writing",
    )

    def __init__(self, sock: socket.socket, *, shared: bool) -> None:
        super().__init__()
        self.turn = Turn() if shared else None
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[Any], int] = sock.send
        self._out = bytearray()
        self._blocked = False  # `_out` holds something, or a write failed for good
        self._reading = False
        self._writing = False
        # uvloop forgets its readers after it has called them once for a connection that was
        # reset, although what came before the reset may need more than one call.
        self._calls_once = not isinstance(self._loop, asyncio.BaseEventLoop)
        self._checking = not self._calls_once  # a check for a reset is under way, or not needed
        self._read_size = SMALL_READ

    def start(self) -> None:
        self.resume_if_wanted()

    # -- reading

    def pause(self) -> None:
        self._paused = True
        self._stop_reading()

    def resume(self) -> None:
        self._paused = False
        self.resume_if_wanted()

    def resume_if_wanted(self) -> None:
        """Read, unless somebody has paused that or nothing more can come."""
        if not (self._reading or self._paused or self._eof or self._gone):
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> bool:
        """Read once. Whether anything came."""
        parser = self._parser
        owner = self._owner
        if parser is None or owner is None:
            return False
        try:
            if parser.large:
                with parser.room() as room:
                    size = self._sock.recv_into(room)
                if size:
                    if not self._checking:
                        self._check_soon()
                    owner.frame_bytes_received(size)
                    return True
            else:
                data = self._recv(self._read_size)
                if data:
                    if not self._checking:
                        self._check_soon()
                    self._read_size = READ_SIZE if len(data) >= SMALL_READ else SMALL_READ
                    owner.data_received(data)
                    return True
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.abort()
            return False
        self._got_eof()
        return False

    def _check_soon(self) -> None:
        self._checking = True
        self._loop.call_later(RESET_CHECK, self._check_reset)

    def _check_reset(self) -> None:
        self._checking = False
        if not self._gone and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._broken()

    def _got_eof(self) -> None:
        self._eof = True
        self._stop_reading()
        if self._finishing and not self.buffered:
            self._close()
        elif self._owner is not None:
            self._owner.pipe_eof()

    # -- writing

    def write(self, data: bytes) -> bool:
        if not self._blocked:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                return self._not_sent(data, exc)
            if sent == len(data):
                return True
            self._rest_later(data, sent)
            return False
        self._out += data
        return False

    def _rest_later(self, data: bytes, sent: int) -> None:
        """The system has not taken all of what was written."""
        self._out += memoryview(data)[sent:]
        self._blocked = True
        self._start_writing()

    def write_from_thread(self, attempt: ThreadWrite) -> bool:
        if self._blocked:
            return False
        attempt.begun = True
        # Sending and noting the result is one operation: no interrupt comes in between.
        attempt.sent.extend(map(self._send, (attempt.frame,)))
        return attempt.sent[0] == len(attempt.frame)

    def finish_thread_write(self, attempt: ThreadWrite) -> bool:
        if not attempt.sent:
            return self._attempt_unknown(attempt)
        sent = attempt.sent[0]
        if sent < len(attempt.frame):
            self._rest_later(attempt.frame, sent)
        return True

    def _attempt_unknown(self, attempt: ThreadWrite) -> bool:
        """The attempt was interrupted, or refused, before anything was sent."""
        return False

    def _start_writing(self) -> None:
        if not self._writing and not self._gone and self._out:
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)

    def _not_sent(self, data: bytes | bytearray, exc: OSError) -> bool:
        """The system refused: try again where it was short of memory, else it is over."""
        self._blocked = True
        if data is not self._out:
            self._out += data
        call = self._retry_later if exc.errno in _NO_MEMORY else self._broken
        self._loop.call_soon(call)
        return False

    def _retry_later(self) -> None:
        # The socket counts as writable all the while: a writer would spin.
        self._stop_writing()
        self._loop.call_later(RETRY, self._start_writing)

    def _broken(self) -> None:
        """A write failed. What the peer sent before, a close frame perhaps, is still handed on,
        unless reading is paused: then nobody would learn of the end."""
        self._stop_writing()
        while self._reading and self._readable():
            pass
        self.abort()

    def _writable(self) -> None:
        turn = self.turn
        if turn is not None and not turn.take_on_loop():
            return  # the loop calls again
        try:
            if not self._out or not self._push():
                return
            self._blocked = False
            self._stop_writing()
        finally:
            if turn is not None:
                turn.give()
        if self._owner is not None:
            self._owner.pipe_drained()
        if self._finishing and not self._out:
            self._shut()

    def _push(self) -> bool:
        """Write from the buffer. Whether nothing is left."""
        out = self._out
        try:
            with memoryview(out) as view:
                sent = self._send(view)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            self._not_sent(out, exc)
            return False
        del out[:sent]
        return not out

    @property
    def buffered(self) -> int:
        return len(self._out)

    @property
    def unacknowledged(self) -> int:
        if fcntl is None or self._gone or not hasattr(termios, "TIOCOUTQ"):
            return 0
        try:
            queued = fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        return int.from_bytes(queued, sys.byteorder)

    # -- the end

    def _shut(self) -> None:
        if self._gone:
            return
        if self._linger and not self._eof:
            try:
                # Not the method of SSLSocket, after which nothing can be read.
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
            except OSError:
                self._close()
                return
            self.resume()
        else:
            self._close()

    def abort(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._gone:
            return
        turn = self.turn
        if turn is not None and not turn.take_on_loop():
            # The descriptor may belong to another socket as soon as it is closed.
            self._loop.call_later(PATIENCE, self._close)
            return
        self._gone = self._eof = self._blocked = True
        self._stop_reading()
        self._stop_writing()
        self._sock.close()
        self.dropped = len(self._out)
        self._out.clear()
        if turn is not None:
            turn.give()
        self._loop.call_soon(self._tell_lost)


class TlsPipe(TcpPipe):
    """An ``ssl.SSLSocket`` whose handshake is done.

    OpenSSL's object must not be used by two threads at once, so that reading takes the turn, too.
    """

    __slots__ = ("_read_wants_write", "_write_wants_read")

    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, *, shared: bool) -> None:
        super().__init__(sock, shared=shared)
        self._recv = sock.read
        self._send = sock.send
        # The TLS layer may have to read before it can write, and the other way round: after a
        # renegotiation or an update of the keys.
        self._read_wants_write = False
        self._write_wants_read = False

    def _readable(self) -> bool:
        owner = self._owner
        turn = self.turn
        if owner is None:
            return False
        if turn is not None and not turn.take_on_loop():
            return False  # the loop calls again
        over = broken = False
        chunks = []
        size = 0
        try:
            while size < BUDGET:
                data = self._recv(RECORD_SIZE)
                if not data:
                    over = True
                    break
                chunks.append(data)
                size += len(data)
                # A shorter record is most often the last one there is; if not, the loop calls
                # again, because OpenSSL leaves the next one to the system until it is read.
                if len(data) < RECORD_SIZE and not self._sock.pending():
                    break
            pending = self._sock.pending() > 0
        except (ssl.SSLWantReadError, BlockingIOError, InterruptedError):
            pending = False
        except ssl.SSLWantWriteError:
            pending = False
            self._read_wants_write = True
            self._start_writing()
        except (OSError, ValueError):
            pending = False
            broken = True
        finally:
            if turn is not None:
                turn.give()
        if pending:
            self._loop.call_soon(self._read_pending)
        if chunks:
            owner.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if broken:
            self.abort()
        elif over:
            self._got_eof()
        elif self._write_wants_read:
            self._write_wants_read = False
            if self._paused:
                self._stop_reading()
            self._start_writing()
        if not self._checking:
            self._check_soon()
        return bool(chunks)

    def _read_pending(self) -> None:
        if self._reading:
            self._readable()

    def resume_if_wanted(self) -> None:
        super().resume_if_wanted()
        if self._reading and self._sock.pending():
            self._loop.call_soon(self._read_pending)

    def write(self, data: bytes) -> bool:
        if self._blocked:
            return super().write(data)
        sent = 0
        size = len(data)
        try:
            if size <= TLS_WRITE_SIZE:
                sent = self._send(data)
            else:
                with memoryview(data) as view:
                    while sent < size:
                        sent += self._send(view[sent : sent + TLS_WRITE_SIZE])
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._write_wants_read = True
        except (OSError, ValueError) as exc:
            return self._not_sent(data[sent:], _as_os_error(exc))
        if sent == size:
            return True
        # OpenSSL has a record of this on its way already: it must come next, and unchanged.
        self._rest_later(data, sent)
        return False

    def write_from_thread(self, attempt: ThreadWrite) -> bool:
        if len(attempt.frame) > TLS_WRITE_SIZE:
            return False  # what is begun in one call has to be repeated with no less
        try:
            return super().write_from_thread(attempt)
        except ssl.SSLWantWriteError:
            attempt.sent.append(0)
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            attempt.sent.append(0)
        return False

    def _attempt_unknown(self, attempt: ThreadWrite) -> bool:
        if attempt.begun:
            # OpenSSL may hold a record of it, which nobody but that thread could continue.
            self._loop.call_soon(self.abort)
        return False

    def _start_writing(self) -> None:
        if self._gone:
            return
        if self._write_wants_read and not self._read_wants_write:
            if not self._reading:  # although it may be paused: what comes is held back above
                self._reading = True
                self._loop.add_reader(self._fd, self._readable)
            return
        if not self._writing and (self._out or self._read_wants_write):
            self._writing = True
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        if self._read_wants_write:
            self._read_wants_write = False
            if not self._out:
                self._stop_writing()
            self._readable()
        if self._out:
            super()._writable()

    def _push(self) -> bool:
        out = self._out
        sent = 0
        try:
            with memoryview(out) as view:
                while sent < len(view):
                    sent += self._send(view[sent : sent + TLS_WRITE_SIZE])
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            self._stop_writing()
            self._start_writing()
        except (OSError, ValueError) as exc:
            del out[:sent]
            self._not_sent(out, _as_os_error(exc))
            return False
        del out[:sent]
        return not out

    def _shut(self) -> None:
        if self._gone:
            return
        try:
            self._sock.unwrap()  # our close_notify; the peer's is not waited for
        except (OSError, ValueError):
            pass
        self._blocked = True  # an unwrapped socket would write in plain
        # OpenSSL takes data that comes now for an error, and an error would reset the connection.
        self._recv = functools.partial(socket.socket.recv, self._sock)
        super()._shut()


def _as_os_error(exc: OSError | ValueError) -> OSError:
    return exc if isinstance(exc, OSError) else OSError(errno.EBADF, str(exc))


class StreamPipe(Pipe):
    """A Tornado stream that stays in charge: on loops that cannot watch sockets (Windows'
    proactor), and for kinds of streams that are not known here."""

    __slots__ = ("_loop", "_out", "_reading", "_stream", "_under_way")

    def __init__(self, stream: IOStream) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._out = bytearray()
        self._under_way = 0  # bytes of the chunk that the stream has not written yet
        self._reading = False

    def start(self) -> None:
        self._read()

    def _read(self) -> None:
        if self._reading or self._paused or self._eof or self._gone:
            return
        try:
            reading = cast("asyncio.Future[bytes]", self._stream.read_bytes(READ_SIZE, True))
        except StreamClosedError:
            self._loop.call_soon(self._got_eof)
            return
        self._reading = True
        reading.add_done_callback(self._chunk)

    def _chunk(self, reading: asyncio.Future[bytes]) -> None:
        self._reading = False
        try:
            data = reading.result()
        except (StreamClosedError, OSError, asyncio.CancelledError):
            self._got_eof()
            return
        if self._owner is not None:
            self._owner.data_received(data)
        self._read()

    def _got_eof(self) -> None:
        if self._eof or self._gone:
            return
        self._eof = True
        if self._owner is not None:
            self._owner.pipe_eof()
        self.abort()  # a stream is closed in both directions at once

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._read()

    def write(self, data: bytes) -> bool:
        if self._gone or self._eof:
            return True
        self._out += data
        if not self._under_way:
            self._write_on()
        return not self.buffered

    def _write_on(self) -> None:
        """Hand chunks over for as long as the stream writes them at once."""
        while self._out:
            chunk = bytes(self._out[:READ_SIZE])
            try:
                writing = self._stream.write(chunk)
            except (StreamClosedError, OSError):
                self._loop.call_soon(self._got_eof)
                return
            del self._out[: len(chunk)]
            if not writing.done():
                self._under_way = len(chunk)
                writing.add_done_callback(self._written)
                return

    def _written(self, writing: asyncio.Future[None]) -> None:
        if writing.cancelled() or writing.exception() is not None:
            self._got_eof()
            return
        self._under_way = 0
        self._write_on()
        if not self.buffered and not self._gone:
            if self._owner is not None:
                self._owner.pipe_drained()
            if self._finishing:
                self._shut()

    @property
    def buffered(self) -> int:
        return len(self._out) + self._under_way

    def _shut(self) -> None:
        self.abort()  # a stream cannot be closed for writing only

    def abort(self) -> None:
        if not self._gone:
            self._gone = self._eof = True
            self.dropped = self.buffered
            self._out.clear()
            self._under_way = 0
            self._stream.close()
            self._loop.call_soon(self._tell_lost)


def watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop can tell when a socket is readable."""
    return not isinstance(loop, getattr(asyncio, "ProactorEventLoop", ()))


def open_pipe(stream: IOStream, *, shared: bool = False) -> tuple[Pipe, bytes]:
    """Take a connection over from a Tornado stream that nobody reads any more.

    Args:
        stream: The stream; it is of no more use afterwards.
        shared: Whether threads other than the loop's write, too.

    Returns:
        The pipe, and what the stream had read already.
    """
    kind = type(stream)
    if (
        kind not in (IOStream, SSLIOStream)
        or stream.closed()
        or stream.writing()
        or not watches_sockets(asyncio.get_running_loop())
    ):
        return StreamPipe(stream), b""
    early = _drain(stream)
    if stream.closed():  # the peer has gone; what it said before still counts
        return StreamPipe(stream), early
    sock = stream.socket
    stream.set_close_callback(None)
    stream.io_loop.remove_handler(sock)
    stream.socket = _closed_socket()
    stream.close()
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:  # no TCP, or the peer is gone, which reading will tell
        pass
    if kind is SSLIOStream:
        return TlsPipe(cast(ssl.SSLSocket, sock), shared=shared), early
    return TcpPipe(sock, shared=shared), early


@functools.cache
def _closed_socket() -> socket.socket:
    """Stands in streams in place of the sockets that were taken out of them."""
    sock = socket.socket()
    sock.close()
    return sock


def _drain(stream: IOStream) -> bytes:
    """What the stream holds. It is closed where a peer floods before it has been let in."""
    data = b""
    while True:
        try:
            early = cast("asyncio.Future[bytes]", stream.read_bytes(READ_SIZE, partial=True))
        except (StreamClosedError, OSError):
            return data
        if not early.done():
            early.add_done_callback(_retrieve)
            return data
        if early.exception() is not None:
            continue  # it was closed just now: what it holds can be read all the same
        data += early.result()
        if len(data) > MAX_EARLY:
            stream.close()
            return b""


def _retrieve(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()
