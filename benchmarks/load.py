"""``python -m benchmarks.load``: one server process, thousands of connections from a second one.

It checks rather than measures: everyone gets in, everyone is answered, a broadcast reaches each
exactly once, numbered messages go both ways without one lost or out of order, and when all have
gone nothing is left. Frames are compared byte by byte with those that must come.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator

from .cores import pair, pin, raise_file_limit
from .generator import CHUNK, PATIENCE, Crowd, LoadFailed
from .process import Process, ProcessFailed
from .progress import Progress
from .wire import PING, PONG, Wse, client_frame, compact, read_frame, server_frame

MEMORY_LIMIT = 40 * 1024  # bytes per connection
WINDOW = 8  # numbered messages under way on each connection
PARTS = 100  # of the numbered messages, for the progress bar
EVERYONE = server_frame(compact(["everyone", {"text": "x" * 64}, None]))


class Failed(Exception):
    """What was promised did not hold."""


def expect(holds: bool, what: str) -> None:
    """Fail unless it holds."""
    if not holds:
        raise Failed(what)


class Device:
    """One connection, which knows what has to arrive next.

    Attributes:
        expected: Makes the frame that has to come next; None where nothing may come.
        received: How many of those have come.
    """

    __slots__ = ("data", "expected", "received", "sent", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = bytearray()
        self.expected: Callable[[int], bytes] | None = None
        self.received = 0
        self.sent = 0

    def read(self) -> int:
        """Take what has arrived; how many of the expected frames that were.

        Raises:
            Failed: Anything else arrived.
        """
        size = self.sock.recv_into(CHUNK)
        expect(size > 0, "the server hung up on a connection")
        data = self.data
        data += CHUNK[:size]
        at, before = 0, self.received
        while at < len(data):
            wanted = self.expected(self.received) if self.expected is not None else b""
            if wanted and data.startswith(wanted, at):
                at += len(wanted)
                self.received += 1
                continue
            frame = read_frame(data, at)
            if frame is None:
                break
            opcode, payload, at = frame
            expect(opcode == PING, f"{payload[:100]!r} came where {wanted[:100]!r} was due")
            self.sock.send(client_frame(payload, PONG))
        del data[:at]
        return self.received - before


class Load:
    """The second process."""

    def __init__(self, server: Process, *, connections: int, users: int, seconds: float) -> None:
        self._server = server
        self._connections = connections
        self._users = users
        self._deadline = time.monotonic() + seconds
        self._crowd = Crowd(server.port, Wse(), users=users)
        self._epoll = select.epoll()
        self._devices: dict[int, Device] = {}

    def events(self) -> Iterator[Device]:
        """Devices that something has arrived for."""
        if time.monotonic() > self._deadline:
            raise Failed("not done in time")
        events = self._epoll.poll(PATIENCE)
        if not events:
            raise Failed(f"nothing arrived for {PATIENCE:g} s")
        for fd, _ in events:
            yield self._devices[fd]

    def join(self) -> str:
        """All come in."""
        run = self._crowd.join(self._connections, at_once=50)
        for sock in self._crowd.sockets():
            self._devices[sock.fileno()] = Device(sock)
            self._epoll.register(sock, select.EPOLLIN)
        now = self._server.ask("count")
        expect(now["connections"] == self._connections, f"all in: {now}")
        expect(now["users"] == self._users, f"all users: {now}")
        return (
            f"{now['connections']:,} connections of {now['users']:,} users in {run.seconds:.1f} s"
        )

    def everyone_is_answered(self) -> str:
        """Each calls, and gets its own answer."""
        for number, device in enumerate(self._devices.values()):
            stamp = f"{number:010}"
            answer = server_frame(compact(["~wse:response", number * 2, stamp]))
            device.expected = lambda _received, answer=answer: answer
            device.received = 0
            device.sock.send(client_frame(compact(["double", number, stamp])))
        self._until(1)
        return "each called, and got its own answer"

    def broadcast(self) -> str:
        """One broadcast reaches each once: a call that follows is answered right behind it."""
        for device in self._devices.values():
            device.expected = lambda _received: EVERYONE
            device.received = 0
        reached = self._server.ask("broadcast")
        expect(reached == self._connections, f"the broadcast was handed to {reached}")
        self._until(1)
        self.everyone_is_answered()  # fails where a second copy comes first
        return f"a broadcast reached each of {reached:,} exactly once"

    def _until(self, count: int) -> None:
        left = len(self._devices)
        while left:
            for device in self.events():
                came = device.read()
                expect(device.received <= count, "an answer or a message came twice")
                if came and device.received == count:
                    left -= 1

    def numbered(self, messages: int, progress: Progress) -> str:
        """Every connection numbers its messages; the server looks at the order, sends each back,
        and the order is looked at here."""
        each = -(-messages // self._connections)
        total = each * self._connections
        going = [client_frame(compact(["numbered", i, None])) for i in range(each)]
        coming = [server_frame(compact(["numbered", i, None])) for i in range(each)] + [b""]
        before = self._server.ask("count")["messages"]
        start = time.monotonic()
        for device in self._devices.values():
            device.expected = coming.__getitem__
            device.received, device.sent = 0, min(WINDOW, each)
            device.sock.send(b"".join(going[: device.sent]))
        done = shown = 0
        while done < total:
            for device in self.events():
                came = device.read()
                done += came
                upto = min(each, device.sent + came)
                if upto > device.sent:
                    device.sock.send(b"".join(going[device.sent : upto]))
                    device.sent = upto
            if (part := done * PARTS // total) > shown:
                progress.step(part - shown)
                progress.show(f"numbered messages: {done:,} of {total:,}")
                shown = part
        seconds = time.monotonic() - start
        now = self._server.ask("count")
        expect(now["messages"] - before == total, f"the server has got all: {now}")
        expect(now["disorder"] == 0, f"in order at the server: {now}")
        return (
            f"{total:,} messages each way, none lost, none out of order, "
            f"in {seconds:.0f} s ({total / seconds:,.0f} a second)"
        )

    def leave(self) -> None:
        """All go."""
        self._epoll.close()
        self._crowd.leave()
        self._devices.clear()


def check_left(server: Process, files: int, tasks: int) -> str:
    """Nothing is left behind once all have gone."""
    deadline = time.monotonic() + 10
    while True:
        now = server.ask("count")
        left = [now["connections"], now["users"], now["files"] - files, server.ask("tasks") - tasks]
        left.append(now["objects"])
        if not any(one > 0 for one in left):
            return "all gone: no user, connection, file, task or object is left"
        expect(
            time.monotonic() < deadline,
            "left behind: connections, users, files, tasks, objects: " + str(left),
        )
        time.sleep(0.1)


def run(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """All of it.

    Raises:
        Failed: Something did not hold.
    """
    under_test, of_load = pair()
    pin(of_load)
    limit = raise_file_limit()
    expect(limit > options.connections + 100, f"only {limit} files may be open; see ulimit -n")
    progress = Progress(PARTS + 5)
    module = f"{__package__}.peers.watched_server"
    flavour = "plain" if options.plain else "fast"
    with Process(module, flavour, "load", core=under_test) as server:
        with Crowd(server.port, Wse()) as first:  # what is opened only once is opened now
            first.join(5)
            first.check("double", 2, 4)
        files, tasks = server.ask("count")["files"], server.ask("tasks")
        empty = server.ask("memory")
        load = Load(
            server, connections=options.connections, users=options.users, seconds=options.seconds
        )
        steps: list[tuple[str, Callable[[], str]]] = [
            ("coming in", load.join),
            ("calls", load.everyone_is_answered),
            ("broadcast", load.broadcast),
        ]
        for title, step in steps:
            progress.show(title)
            say(step())
            progress.step()
        memory = (server.ask("memory") - empty) / options.connections
        say(f"{memory / 1024:.1f} KiB of resident memory per connection")
        if options.connections >= 1000:  # below, what the process has anyway counts too much
            expect(memory <= MEMORY_LIMIT, f"at most {MEMORY_LIMIT // 1024} KiB per connection")
        say(load.numbered(options.messages, progress))
        progress.show("leaving")
        load.leave()
        progress.step()
        say(check_left(server, files, tasks))
        expect(server.ask("count")["errors"] == 0, "no error was reported")
        progress.step()
        progress.show("done")
        progress.end()


def main() -> int:
    """The command. Returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--users", type=int, default=2500, help="half the connections, or as many")
    parser.add_argument("--messages", type=int, default=1_000_000, help="each way, in all")
    parser.add_argument("--seconds", type=float, default=300, help="give up after so many")
    parser.add_argument("--plain", action="store_true", help="a server without the [fast] extra")
    options = parser.parse_args()
    if not options.users <= options.connections <= 2 * options.users or options.messages < 1:
        parser.error("each user has one or two connections, and there are messages to send")
    lines: list[str] = []
    try:
        run(options, lines.append)
    except (Failed, LoadFailed, ProcessFailed) as exc:
        lines.append(f"FAILED: {exc}")
    sys.stderr.write("\n")
    print("\n".join(lines))
    return 1 if lines[-1].startswith("FAILED") else 0


if __name__ == "__main__":
    sys.exit(main())
