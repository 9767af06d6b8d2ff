"""``python -m benchmarks.soak``: connect, talk, vanish, for ten minutes, and nothing grows.

Three processes: a server with both transports, clients of both flavours that come, talk and go,
and this one, which opens sockets, vanishes in the midst of things, and has the server cut
connections at random. The resident memory of server and clients in the last tenth of the time
must be within 5% of that in the second tenth; files, tasks, threads and objects must be back to
what they were.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from .process import Process, ProcessFailed
from .progress import Progress
from .wire import Wse, client_frame, compact

PARTS = 10
GROWTH = 0.05  # of the second part's resident memory
JUDGED = 3.0  # minutes; what is shorter says nothing about memory
AT_ONCE = 40  # raw connections
ROUND = 0.1  # seconds
WARM_UP = 3.0
PATIENCE = 20.0


class Failed(Exception):
    """Something was left, or grew."""


class Vanishing:
    """Raw connections that never live long: some do not even finish the handshake."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socks: list[socket.socket] = []
        self.opened = 0

    def turn(self) -> None:
        """Some come, some talk, some go."""
        for _ in range(random.randrange(1, 8)):
            if len(self._socks) < AT_ONCE:
                self._come()
        for sock in random.sample(self._socks, len(self._socks) // 4):
            self._talk(sock)
        for sock in random.sample(self._socks, len(self._socks) // 4):
            self._go(sock)

    def _come(self) -> None:
        wire = Wse()
        wire.path = random.choice(("/plain", "/deflate"))
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        sock.setblocking(False)
        self.opened += 1
        self._socks.append(sock)
        first = wire.upgrade(self._port) + wire.hello(f"user-{random.randrange(40)}")
        if random.random() < 0.2:
            first = first[: random.randrange(len(first))]
        self._send(sock, first)

    def _talk(self, sock: socket.socket) -> None:
        payload = "x" * random.choice((1, 200, 20_000))
        frame = client_frame(
            compact(random.choice((["chat", payload], ["echo", payload, "s"], ["back", 1, "t"])))
        )
        move = random.random()
        if move < 0.1:
            frame = frame[: random.randrange(len(frame))]  # what comes next is garbage
        elif move < 0.15:
            frame = random.randbytes(30)
        self._send(sock, frame)
        if random.random() < 0.7:
            try:
                while sock.recv(65536):
                    pass
            except OSError:
                pass

    def _send(self, sock: socket.socket, data: bytes) -> None:
        try:
            sock.send(data)
        except OSError:
            pass

    def _go(self, sock: socket.socket) -> None:
        self._socks.remove(sock)
        if random.random() < 0.5:  # a reset
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def all_go(self) -> None:
        """The end."""
        for sock in tuple(self._socks):
            self._go(sock)


class Soak:
    """The two processes that must not grow, and what is done to them."""

    def __init__(self, server: Process, clients: Process) -> None:
        self._server = server
        self._clients = clients
        self._raw = Vanishing(server.port)
        self.samples: list[tuple[int, int]] = []
        self.cut = 0

    def work(self, seconds: float, tick: Callable[[float], None]) -> None:
        """Talk and vanish for so long."""
        self._clients.ask("work")
        begin = sampled = time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            self._raw.turn()
            if now - sampled >= min(1.0, seconds / PARTS / 5):
                sampled = now
                self.cut += self._server.ask("disturb", share=random.choice((0.0, 0.0, 0.05, 0.3)))
                self.samples.append((self._server.ask("resident"), self._clients.ask("resident")))
                tick((now - begin) / seconds)
            time.sleep(ROUND)
        self._raw.all_go()
        self._clients.ask("rest", timeout=60)

    def levels(self) -> dict[str, int]:
        """What has to go back to its start."""
        kept = ("users", "connections", "objects", "files", "tasks", "threads")
        counts = {"server": self._server.ask("count"), "clients": self._clients.ask("count")}
        counts["server"]["tasks"] = self._server.ask("tasks")
        return {
            f"{where}: {name}": count[name]
            for where, count in counts.items()
            for name in kept
            if name in count
        }

    def when_calm(self, start: dict[str, int] | None = None) -> dict[str, int]:
        """Wait until everybody has gone, and all levels are back at those of the start.

        Raises:
            Failed: That takes too long.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            now = self.levels()
            wanted = start or {"server: connections": 0, "server: objects": 0}
            left = {name: (most, now[name]) for name, most in wanted.items() if now[name] > most}
            if not left:
                return now
            if time.monotonic() > deadline:
                raise Failed(f"left behind (at the start, at the end): {left}")
            time.sleep(0.2)

    def totals(self) -> dict[str, Any]:
        """What was done."""
        return {
            "raw": self._raw.opened,
            "cut": self.cut,
            "server": self._server.ask("count"),
            "clients": self._clients.ask("count"),
        }


def growth(samples: list[tuple[int, int]], which: int) -> tuple[float, float]:
    """Resident MiB in the second and in the last part of the time."""
    part = max(1, len(samples) // PARTS)
    second, last = samples[part : 2 * part], samples[-part:]
    return (
        median(one[which] for one in second) / 2**20,
        median(one[which] for one in last) / 2**20,
    )


def run(minutes: float, flavour: str, say: Callable[[str], None]) -> None:
    """All of it.

    Raises:
        Failed: Something was left, or grew.
    """
    progress = Progress(1000)
    done = 0

    def tick(share: float) -> None:
        nonlocal done
        progress.step(int(share * 1000) - done)
        done = int(share * 1000)
        now = soak.samples[-1]
        progress.show(f"resident MiB: server {now[0] / 2**20:.1f}, clients {now[1] / 2**20:.1f}")

    peers = f"{__package__}.peers"
    with Process(f"{peers}.watched_server", flavour, "soak", core=None) as server:
        port = str(server.port)
        with Process(f"{peers}.soak_clients", flavour, port, core=None) as clients:
            progress.show("warming up")
            warm = Soak(server, clients)
            warm.work(WARM_UP, lambda share: None)
            start = warm.when_calm()
            soak = Soak(server, clients)
            soak.work(minutes * 60, tick)
            totals = soak.totals()
            say(
                f"{totals['raw']:,} sockets opened here, {totals['clients']['lives']:,} lives of "
                f"clients, {totals['server']['connected']:,} times let in, {totals['cut']:,} "
                f"connections cut by the server, {totals['server']['calls']:,} calls served"
            )
            failures = []
            for which, name in enumerate(("server", "clients")):
                before, after = growth(soak.samples, which)
                share = after / before - 1
                say(
                    f"{name}: {before:.1f} MiB in the second tenth, {after:.1f} in the last "
                    f"({share:+.1%})"
                )
                if minutes >= JUDGED and share > GROWTH:
                    failures.append(f"the {name} grew by {share:.1%}")
            soak.when_calm(start)
            say("files, tasks, threads, users and objects are back to their start")
            if totals["clients"]["wrong"]:
                failures.append(f"{totals['clients']['wrong']} exceptions that are no WseError")
            if failures:
                raise Failed("; ".join(failures))
    progress.end()


def main() -> int:
    """The command. Returns 1 where something grew or was left."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--plain", action="store_true", help="without the [fast] extra")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error("--minutes is above 0")
    lines: list[str] = []
    try:
        run(options.minutes, "plain" if options.plain else "fast", lines.append)
    except (Failed, ProcessFailed) as exc:
        lines.append(f"FAILED: {exc}")
    sys.stderr.write("\n")
    print("\n".join(lines))
    return 1 if lines[-1].startswith("FAILED") else 0


if __name__ == "__main__":
    sys.exit(main())
