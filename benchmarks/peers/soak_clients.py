"""The clients of ``python -m benchmarks.soak``: of both flavours, made, used and thrown away."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from typing import Any

from . import flavour

flavour.choose(sys.argv[1])

from wse_tornado import (  # noqa: E402
    AsyncWseClient,
    Backoff,
    Limits,
    ReceiveTimeout,
    WseClient,
    WseError,
)

from ..control import obey, report, resident_bytes  # noqa: E402
from .inside import abort, objects  # noqa: E402

PORT = int(sys.argv[2])
BLOCKING, ASYNC = 6, 10  # at a time
SECONDS = 1.0  # for one wait
LIMITS = Limits(heartbeat=1.0, heartbeat_timeout=1.0, close_timeout=1.0, max_inbox=100)
counts = {"lives": 0, "done": 0, "failed": 0, "wrong": 0}
working = threading.Event()
resting: list[threading.Thread] = []


def options() -> dict[str, Any]:
    """How to make a client."""
    way = random.choice(("plain", "deflate"))
    return {
        "url": f"ws://127.0.0.1:{PORT}/{way}",
        "compression": way == "deflate" and random.random() < 0.5,
        "reconnect": random.random() < 0.5 and Backoff(initial=0.01, maximum=0.1),
        "timeout": SECONDS,
        "limits": LIMITS,
    }


def user() -> str:
    return f"user-{random.randrange(20)}"


def text() -> str:
    return "x" * random.choice((1, 100, 5000, 100_000))


def block() -> None:
    """Lives of blocking clients, one after the other."""
    while working.is_set():
        counts["lives"] += 1
        try:
            with WseClient(**options()) as client:
                client.register("echo", lambda payload: payload)
                client.channel.on("chat", lambda payload: None)
                client.connect(user(), {"device": "soak"})
                for _ in range(random.randrange(40)):
                    move = random.choice(
                        (
                            lambda client=client: client.call("echo", text()),
                            lambda client=client: client.call("back", text()),
                            lambda client=client: client.send("chat", text()),
                            lambda client=client: client.submit("echo", 1).cancel(),
                            lambda client=client: client.receive(timeout=0.02),
                        )
                    )
                    try:
                        move()
                    except ReceiveTimeout:
                        pass
                    counts["done"] += 1
                    time.sleep(random.random() / 20)
                if random.random() < 0.3:  # vanish
                    abort(client)
        except WseError:
            counts["failed"] += 1
        except Exception as exc:
            counts["wrong"] += 1
            sys.stderr.write(f"{exc!r}\n")


async def live() -> None:
    """The life of one client on the loop."""
    async with AsyncWseClient(**options()) as client:
        client.register("echo", lambda payload: payload)
        client.channel.on("chat", lambda payload: None)
        await client.connect(user(), {"device": "soak"})
        for _ in range(random.randrange(40)):
            match random.randrange(4):
                case 0:
                    await client.call("echo", text())
                case 1:
                    await client.call("back", text())
                case 2:
                    client.send("chat", text())
                case _:
                    try:
                        await client.receive(timeout=0.02)
                    except ReceiveTimeout:
                        pass
            counts["done"] += 1
            await asyncio.sleep(random.random() / 20)
        if random.random() < 0.3:
            abort(client)


async def lives() -> None:
    while working.is_set():
        counts["lives"] += 1
        try:
            await live()
        except WseError:
            counts["failed"] += 1
        except Exception as exc:
            counts["wrong"] += 1
            sys.stderr.write(f"{exc!r}\n")


async def asynchronous() -> None:
    await asyncio.gather(*(lives() for _ in range(ASYNC)))
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=5)
    counts["tasks"] = len(asyncio.all_tasks()) - 1


def work() -> None:
    """Begin."""
    working.set()
    resting[:] = [threading.Thread(target=block) for _ in range(BLOCKING)]
    resting.append(threading.Thread(target=asyncio.run, args=(asynchronous(),)))
    for thread in resting:
        thread.start()


def rest() -> None:
    """Finish the lives that have begun."""
    working.clear()
    for thread in resting:
        thread.join()
    resting.clear()


def count() -> dict[str, int]:
    """What there is now."""
    return {
        **counts,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "resident": resident_bytes(),
        "objects": objects(),
    }


if __name__ == "__main__":
    report(connected=True)
    obey({"work": work, "rest": rest, "count": count})
