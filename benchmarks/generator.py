"""The load: one thread, one epoll, frames made ahead of time, answers counted by their length.

It must cost less per operation than the fastest server it loads. Nothing is parsed while it
measures; the first answer of each connection is read and checked, and all others must be as long.
That holds because every call of a run has an answer of one length and because servers say nothing
else within seconds (their pings come after 20 s and more).
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .cores import raise_file_limit
from .tls import client_context, of_load
from .wire import GOODBYE, Wire, read_frame

PATIENCE = 8.0  # seconds without any answer after which a server counts as stuck
CHUNK = bytearray(1 << 20)
clock = time.perf_counter


class LoadFailed(Exception):
    """The server did not answer as it should."""


@dataclass
class Run:
    """What a run of load saw.

    Attributes:
        operations: Calls answered, messages delivered, or connections let in.
        seconds: How long that took.
        waits: Seconds from question to answer (a sample when several are under way).
        busy: Share of its core that the load took, 0 to 1.
    """

    operations: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    busy: float = 0.0


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def timed() -> Iterator[Run]:
    """Fill in a run's time and how busy the load was. The collector waits until it is over."""
    run = Run()
    gc.collect()
    gc.disable()
    cpu, start = _own_cpu(), clock()
    try:
        yield run
        run.seconds = clock() - start
        run.busy = (_own_cpu() - cpu) / run.seconds
    finally:
        gc.enable()


class Crowd:
    """Connections to one server, all let in, each as a user of its own.

    A context manager: leaving it says goodbye and waits until the server has hung up too.

    Args:
        port: Where the server listens.
        wire: What it speaks.
        tls: Whether it speaks TLS.
        users: After so many users the next connection is the first one's second.
    """

    def __init__(self, port: int, wire: Wire, *, tls: bool = False, users: int = 1_000_000) -> None:
        self._tls = of_load(client_context()) if tls else None
        self.port = port
        self.wire = wire
        self._max_users = users
        self._socks: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._users = 0
        raise_file_limit()

    def __len__(self) -> int:
        return len(self._socks)

    def sockets(self) -> list[socket.socket]:
        """The connections, to be used directly."""
        return list(self._socks.values())

    # -- coming and going

    def join(self, count: int, *, at_once: int = 16) -> Run:
        """Connect and get in ``count`` times, some at once. An operation is one connection."""
        upgrade = self.wire.upgrade(self.port)
        opening: dict[int, _Opening] = {}
        to_start = count
        with timed() as run:
            while to_start or opening:
                while to_start and len(opening) < at_once:
                    to_start -= 1
                    user = f"user-{self._users % self._max_users:06}"
                    one = _Opening(self.port, user, self._tls)
                    self._users += 1
                    opening[one.sock.fileno()] = one
                    self._socks[one.sock.fileno()] = one.sock
                    if not one.handshaking or one.shake_hands():
                        one.sock.send(upgrade)
                    self._epoll.register(one.sock, select.EPOLLIN)
                for fd, _ in self._wait():
                    one = opening[fd]
                    if one.handshaking:
                        if one.shake_hands():
                            one.sock.send(upgrade)
                        continue
                    if one.advance(self.wire):
                        run.waits.append(clock() - one.began)
                        run.operations += 1
                        del opening[fd]
        return run

    def leave(self) -> None:
        """Close every connection, politely, and wait for the server's end of each."""
        for fd, sock in self._socks.items():
            try:
                sock.send(GOODBYE)
            except OSError:
                self._drop(fd)
        left = {fd for fd, sock in self._socks.items() if sock.fileno() >= 0}
        deadline = clock() + 5
        while left and clock() < deadline:
            for fd, _ in self._epoll.poll(1):
                try:
                    if self._socks[fd].recv_into(CHUNK):
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                self._drop(fd)
                left.discard(fd)
        for fd in left:
            self._drop(fd)
        self._socks.clear()

    def _drop(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass
        self._socks[fd].close()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()
        self._epoll.close()

    def _wait(self) -> list[tuple[int, int]]:
        events = self._epoll.poll(PATIENCE)
        if not events:
            raise LoadFailed(f"the server said nothing for {PATIENCE:g} s")
        return events

    # -- one question, one answer

    def ask(self, fd: int, frame: bytes) -> tuple[bytes, int]:
        """Send one call and read its answer: the payload, and the length of the whole frame."""
        sock = self._socks[fd]
        sock.setblocking(True)
        sock.settimeout(PATIENCE)
        try:
            sock.sendall(frame)
            data = bytearray()
            while (answer := read_frame(data)) is None:
                size = sock.recv_into(CHUNK)
                if not size:
                    raise LoadFailed("the server hung up")
                data += CHUNK[:size]
        finally:
            sock.setblocking(False)
        _opcode, payload, end = answer
        if end != len(data):
            raise LoadFailed(f"more than one answer: {bytes(data[:200])!r}")
        return payload, end

    def check(self, name: str, argument: Any, expected: Any) -> int:
        """Call once on every connection. Returns the length of the answers, which all have."""
        frame = self.wire.call(name, argument, 0)
        sizes = set()
        for fd in self._socks:
            payload, size = self.ask(fd, frame)
            if (result := self.wire.result(payload)) != expected:
                raise LoadFailed(f"{name} answered {result!r:.100}, not {expected!r:.100}")
            sizes.add(size)
        if len(sizes) != 1:
            raise LoadFailed(f"answers of several lengths: {sizes}")
        return sizes.pop()

    # -- closed loops

    def calls(self, name: str, argument: Any, in_flight: int, size: int, seconds: float) -> Run:
        """Keep ``in_flight`` calls under way on every connection.

        Args:
            name: The procedure.
            argument: Its argument, the same in all calls.
            in_flight: Calls under way on each connection.
            size: Bytes of each answer, from `check`.
            seconds: How long to go on asking; then all answers are awaited.
        """
        frames = b"".join(self.wire.call(name, argument, i) for i in range(in_flight))
        step = len(frames) // in_flight
        ring = memoryview(frames * 2)
        streams = {fd: _Stream(sock) for fd, sock in self._socks.items()}
        under_way = in_flight * len(streams)
        poll, receive, epoll = self._epoll.poll, CHUNK, self._epoll
        with timed() as run:
            waits = run.waits
            done = 0
            end = clock() + seconds
            for fd, stream in streams.items():
                stream.asked_at = clock()
                if not stream.send(ring[: step * in_flight]):
                    epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            asking = True
            while under_way:
                events = poll(PATIENCE)
                if not events:
                    raise LoadFailed(f"the server said nothing for {PATIENCE:g} s")
                now = clock()
                if now >= end:
                    asking = False
                for fd, event in events:
                    stream = streams[fd]
                    if event & select.EPOLLOUT and stream.flush():
                        epoll.modify(fd, select.EPOLLIN)
                    if not event & ~select.EPOLLOUT:
                        continue
                    try:
                        got = stream.recv_into(receive)
                    except BlockingIOError:  # a part of a TLS record
                        continue
                    if not got:
                        raise LoadFailed("the server hung up")
                    answers, stream.rest = divmod(stream.rest + got, size)
                    if not answers:
                        continue
                    done += answers
                    under_way -= answers
                    stream.answered += answers
                    if stream.answered >= stream.probe:
                        now = clock()
                        waits.append(now - stream.asked_at)
                        stream.asked_at = now
                        stream.probe = stream.answered - answers + in_flight + 1
                    if asking:
                        under_way += answers
                        at = stream.next
                        stream.next = (at + answers) % in_flight
                        if not stream.send(ring[at * step : (at + answers) * step]):
                            epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            run.operations = done
        if any(stream.rest for stream in streams.values()):
            raise LoadFailed("answers of other lengths than the first")
        return run

    def broadcasts(self, payload: Any, seconds: float) -> Run:
        """Have the server broadcast, again when all have got it. An operation is one delivery."""
        shout = self.wire.message("shout", payload)
        first = next(iter(self._socks))
        self._socks[first].send(shout)
        size = self._one_broadcast(None)
        with timed() as run:
            end = clock() + seconds
            while (asked := clock()) < end:
                self._socks[first].send(shout)
                self._one_broadcast(size)
                run.waits.append(clock() - asked)
                run.operations += len(self._socks)
        return run

    def _one_broadcast(self, size: int | None) -> int:
        """Wait until every connection has ``size`` bytes; None learns the size from the first."""
        receivers = {fd: sock.recv_into for fd, sock in self._socks.items()}
        got = dict.fromkeys(receivers, 0)
        to_come = len(receivers)
        while to_come:
            for fd, _ in self._wait():
                try:
                    count = receivers[fd](CHUNK)
                except BlockingIOError:
                    continue
                if size is None:
                    frame = read_frame(CHUNK[:count])
                    if frame is None or frame[2] != count:
                        raise LoadFailed("a broadcast came in pieces, or something beside it")
                    size = count
                got[fd] += count
                if got[fd] == size:
                    to_come -= 1
                elif got[fd] > size or not count:
                    raise LoadFailed("a broadcast came twice, or the server hung up")
        assert size is not None
        return size


class _Stream:
    """One connection in a closed loop.

    Attributes:
        rest: Bytes of an answer that is not whole yet.
        answered: Answers so far.
        probe: The answer whose wait is measured next; answers of a connection come in order.
        asked_at: When its question was sent.
        next: The frame of the ring that comes next.
    """

    __slots__ = ("_send", "answered", "asked_at", "next", "probe", "recv_into", "rest", "to_send")

    def __init__(self, sock: socket.socket) -> None:
        self._send: Callable[[Any], int] = sock.send
        self.recv_into: Callable[[bytearray], int] = sock.recv_into
        self.rest = 0
        self.answered = 0
        self.probe = 1
        self.asked_at = 0.0
        self.next = 0
        self.to_send: memoryview | None = None

    def send(self, data: memoryview) -> bool:
        """Send; False where some of it has to wait."""
        if self.to_send is not None:
            self.to_send = memoryview(bytes(self.to_send) + bytes(data))
            return False
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self.to_send = data[sent:]
        return False

    def flush(self) -> bool:
        """Send what waits; True where all has left."""
        data, self.to_send = self.to_send, None
        return data is None or self.send(data)


class _Opening:
    """A connection on its way in."""

    __slots__ = ("began", "data", "handshaking", "said_hello", "sock", "upgraded", "user")

    def __init__(self, port: int, user: str, tls: ssl.SSLContext | None) -> None:
        self.began = clock()
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.handshaking = tls is not None
        if tls is not None:
            self.sock = tls.wrap_socket(
                self.sock, server_hostname="127.0.0.1", do_handshake_on_connect=False
            )
        self.user = user
        self.data = bytearray()
        self.upgraded = self.said_hello = False

    def shake_hands(self) -> bool:
        """Go on with TLS's handshake. True once it is over."""
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.handshaking = False
        return True

    def advance(self, wire: Wire) -> bool:
        """Take what has arrived. True once the user is in."""
        try:
            size = self.sock.recv_into(CHUNK)
        except BlockingIOError:  # TLS's session tickets
            return False
        if not size:
            raise LoadFailed(f"the server hung up on {self.user}: {bytes(self.data[:200])!r}")
        self.data += CHUNK[:size]
        if not self.upgraded:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return False
            if not self.data.startswith(b"HTTP/1.1 101 "):
                raise LoadFailed(f"no upgrade: {bytes(self.data[:200])!r}")
            del self.data[: end + 4]
            self.upgraded = True
            if not wire.greets:
                self._say_hello(wire)
        while (frame := read_frame(self.data)) is not None:
            _opcode, payload, end = frame
            del self.data[:end]
            if not self.said_hello:
                self._say_hello(wire)
            elif wire.welcomes(payload) and not self.data:
                return True
            else:
                raise LoadFailed(f"not a welcome: {payload[:200]!r}")
        return False

    def _say_hello(self, wire: Wire) -> None:
        self.said_hello = True
        self.sock.send(wire.hello(self.user))
