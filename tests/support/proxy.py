"""A proxy on plain sockets that does to connections what networks do."""

import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

UP, DOWN = "up", "down"
FULL = 65536  # bytes under way in one direction before reading pauses
TURN = 0.02  # seconds in which the end of the proxy is noticed


@dataclass(frozen=True)
class Fault:
    """What happens to one connection.

    Attributes:
        what: "cut" ends both sides orderly, "reset" by a reset; "drop" swallows the rest, "stall"
            reads no more; "half-open" resets the end that the bytes come from and tells the other
            nothing. "none" leaves the connection alone but for `delay` and `piece`.
        way: The direction: "up" to the server, "down" to the client.
        after: How many bytes of that direction get through first, the handshake's included.
        delay: Seconds every byte is late, in both directions.
        piece: Chunks are cut into pieces of 1 to so many bytes, and each waits at random besides.
    """

    what: Literal["none", "cut", "reset", "drop", "stall", "half-open"] = "none"
    way: str = UP
    after: int = 0
    delay: float = 0.0
    piece: int = 0


class _Way:
    """One direction of one connection."""

    def __init__(self, fault: Fault, name: str) -> None:
        self.fault = fault
        self.strikes = fault.what != "none" and fault.way == name
        self.left = fault.after
        self.passed = 0
        self.pending: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.ended = False
        self._dice = random.Random(1)

    @property
    def struck(self) -> bool:
        return self.strikes and self.left <= 0 and not self.pending

    @property
    def reads(self) -> bool:
        stalled = self.strikes and self.left <= 0 and self.fault.what != "drop"
        return not self.ended and not stalled and self.size < FULL

    def take(self, data: bytes) -> None:
        if self.strikes:
            data = data[: max(0, self.left)]  # the rest is lost
            self.left -= len(data)
        due = time.monotonic() + self.fault.delay
        step = self.fault.piece
        while data:
            size = self._dice.randint(1, step) if step else len(data)
            self.pending.append((due, data[:size]))
            self.size += min(size, len(data))
            data = data[size:]
            if step:
                due += self._dice.random() * 0.0005

    def due(self, now: float) -> bool:
        return bool(self.pending) and self.pending[0][0] <= now

    def write(self, sink: socket.socket) -> None:
        due, data = self.pending[0]
        self.passed += len(data)  # before: who gets the bytes may ask at once
        sent = 0
        try:
            sent = sink.send(data)
        finally:
            self.passed -= len(data) - sent
        self.size -= sent
        self.pending.popleft()
        if sent < len(data):
            self.pending.appendleft((due, data[sent:]))


class _Pipe:
    """One connection through the proxy, on a thread of its own."""

    def __init__(self, proxy: "FaultProxy", client: socket.socket, fault: Fault) -> None:
        self.proxy = proxy
        self.fault = fault
        self.client: socket.socket | None = client
        self.server: socket.socket | None = None
        self.ways = {UP: _Way(fault, UP), DOWN: _Way(fault, DOWN)}
        self.broken = threading.Event()
        self.silent = False  # after the fault nobody is told anything
        self.thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def _run(self) -> None:
        try:
            self.server = socket.create_connection(("127.0.0.1", self.proxy.upstream), 5)
            for sock in (self.client, self.server):
                assert sock is not None
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self.proxy.over.is_set() and (self.client or self.server):
                if self.broken.is_set():
                    self._close("client", reset=True)
                    self._close("server", reset=True)
                    break
                self._strike()
                self._turn()
        except OSError:
            pass
        finally:
            self._close("client")
            self._close("server")

    def _ends(self, name: str) -> tuple[str, str]:
        return ("client", "server") if name == UP else ("server", "client")

    def _strike(self) -> None:
        for name, way in self.ways.items():
            if not way.struck:
                continue
            source, _ = self._ends(name)
            self.proxy.struck.set()
            self.silent = True
            if self.fault.what in ("cut", "reset"):
                reset = self.fault.what == "reset"
                self._close("client", reset=reset)
                self._close("server", reset=reset)
            elif self.fault.what == "half-open":
                self._close(source, reset=True)

    def _turn(self) -> None:
        now = time.monotonic()
        readers, writers, wait = [], [], TURN
        for name, way in self.ways.items():
            source, sink = (getattr(self, end) for end in self._ends(name))
            if source is not None and (way.reads or (self.silent and sink is None)):
                readers.append(source)
            if sink is None:
                way.pending.clear()
                way.size = 0
            elif way.due(now):
                writers.append(sink)
            elif way.pending:
                wait = min(wait, max(0.0, way.pending[0][0] - now))
        readable, writable, _ = select.select(readers, writers, [], wait)
        for name, way in self.ways.items():
            from_, to = self._ends(name)
            source, sink = getattr(self, from_), getattr(self, to)
            if source in readable and source is not None:
                try:
                    data = source.recv(65536)
                except OSError:
                    self._lost(from_, reset=True)
                    continue
                if data and sink is not None:
                    way.take(data)
                elif not data:
                    way.ended = True
                    if sink is None or self.silent:
                        self._lost(from_, reset=False)
                        continue
            if sink in writable and sink is not None and way.due(now):
                try:
                    way.write(sink)
                except BlockingIOError:
                    pass
                except OSError:
                    self._lost(to, reset=True)
                    continue
            if way.ended and not way.pending and sink is not None and not self.silent:
                self._lost(from_, reset=False)

    def _lost(self, end: str, *, reset: bool) -> None:
        """One side has gone: the other is told, unless a fault keeps it from it."""
        self._close(end)
        if not self.silent:
            self._close("server" if end == "client" else "client", reset=reset)

    def _close(self, end: str, *, reset: bool = False) -> None:
        sock: socket.socket | None = getattr(self, end)
        if sock is None:
            return
        setattr(self, end, None)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


class FaultProxy:
    """Stands between clients and the server on a port; a context manager.

    Args:
        upstream: The server's port on 127.0.0.1.
        faults: What happens to the first connection, the second, and so on. Further ones are
            left alone.

    Attributes:
        struck: Set when a fault has happened.
    """

    def __init__(self, upstream: int, *faults: Fault) -> None:
        self.upstream = upstream
        self.struck = threading.Event()
        self.over = threading.Event()
        self._faults = deque(faults)
        self._pipes: list[_Pipe] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self._acceptor.start()

    def fail_next(self, fault: Fault) -> None:
        """Do this to the next connection."""
        self._faults.append(fault)
        self.struck.clear()

    def cut(self) -> None:
        """Reset both ends of all connections, now."""
        for pipe in self._pipes:
            pipe.broken.set()
            pipe.thread.join(5)

    def passed(self, index: int) -> tuple[int, int]:
        """Bytes that one connection has sent up and got down."""
        ways = self._pipes[index].ways
        return ways[UP].passed, ways[DOWN].passed

    def __len__(self) -> int:
        return len(self._pipes)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            fault = self._faults.popleft() if self._faults else Fault()
            pipe = _Pipe(self, sock, fault)
            self._pipes.append(pipe)
            pipe.thread.start()

    def __enter__(self) -> "FaultProxy":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.over.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._acceptor.join(5)
        for pipe in self._pipes:
            pipe.thread.join(5)


class SlowProxy:
    """A line of so many bytes a second each way, whose buffers are small; a context manager."""

    def __init__(self, upstream: int, *, rate: int) -> None:
        self.upstream = upstream
        self.rate = rate
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="slow-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            server.connect(("127.0.0.1", self.upstream))
            self._socks += [client, server]
            self._start(self._pass_on, client, server)
            self._start(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
                time.sleep(len(data) / self.rate)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):
                _shut(sock)

    def __enter__(self) -> "SlowProxy":
        return self

    def __exit__(self, *exc_info: object) -> None:
        _shut(self._listener)
        self._listener.close()
        for sock in self._socks:
            _shut(sock)
        for thread in self._threads:
            thread.join(5)
        for sock in self._socks:
            sock.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
