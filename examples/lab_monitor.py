"""Readings of a laboratory: one command publishes them, others plot them live or keep them.

    python examples/lab_monitor.py publish                     an instrument, on port 4300
    python examples/lab_monitor.py watch                       a line for each reading
    python examples/lab_monitor.py watch --csv readings.csv    into a file, until Ctrl-C
    python examples/lab_monitor.py watch --plot                a window that moves
    python examples/lab_monitor.py watch --count 200 --png readings.png
    python examples/lab_monitor.py --demo                      both at once, and ends

Watchers come back when the instrument restarts. ``watch --period 0.1`` tells the instrument, by a
call, how often to read. Plots need matplotlib.
"""

import argparse
import contextlib
import csv
import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from wse_tornado import NotAuthorized, Status, WseClient, WseServer

KEY = "lab-key"
SHOWN = 200  # readings in the moving window


class Instrument:
    """A thermometer and a pressure gauge, made up. Put your own driver here."""

    def __init__(self):
        self.number = 0

    def read(self):
        self.number += 1
        return {
            "number": self.number,
            "time": time.time(),
            "celsius": round(21 + 2 * math.sin(self.number / 20) + random.gauss(0, 0.05), 3),
            "pascal": round(101_325 + 40 * math.cos(self.number / 35) + random.gauss(0, 1), 1),
        }


# -- the one who publishes


def publish(port, period, *, stop=None, on_ready=print):
    """Read the instrument and broadcast, until Ctrl-C or ``stop``."""
    stop = stop or threading.Event()
    periods = {"seconds": period}

    def identify(auth):
        if auth.identity == KEY:
            return f"watcher at {auth.remote_addr}"
        return auth.refuse()

    server = WseServer(port=port, identify=identify, conn_per_user=20)

    @server.register("set-period")
    def set_period(conn, seconds):
        periods["seconds"] = max(0.005, float(seconds))
        return periods["seconds"]

    with server:
        on_ready(server.url)
        instrument = Instrument()
        while not stop.wait(periods["seconds"]):
            server.broadcast("reading", instrument.read())


# -- those who watch


def readings(client, count=None):
    """Readings as they come: until so many have, or the connection is over for good."""
    for number, message in enumerate(client, 1):
        yield message.payload
        if number == count:
            return


def watch(url, sinks, *, count=None, period=None):
    """Hand every reading to each of the sinks. How many there were."""
    number = 0
    with WseClient(url, reconnect=True) as client:
        client.when.updated(tell_losses)
        client.connect(KEY, {"program": "lab_monitor"})
        if period is not None:
            client.call("set-period", period)
        for number, reading in enumerate(readings(client, count), 1):  # noqa: B007
            for sink in sinks:
                sink(reading)
    return number


def tell_losses(status):
    if status == Status.RE_CONNECTING:
        print("watch: the instrument is away; trying again", file=sys.stderr)


def to_lines(reading):
    print(f"{reading['number']:6} {reading['celsius']:8.3f} °C {reading['pascal']:10.1f} Pa")


@contextlib.contextmanager
def to_csv(path):
    """A sink that writes a file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["number", "time", "celsius", "pascal"])
        writer.writeheader()

        def write(reading):
            writer.writerow(reading)
            file.flush()  # whoever looks into the file sees it at once

        yield write


@contextlib.contextmanager
def to_plot(*, png=None):
    """A sink that draws: into a window that moves, or at the end into a file."""
    import matplotlib

    if png:
        matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, sharex=True, layout="constrained")
    upper.set_ylabel("°C")
    lower.set_ylabel("Pa")
    lower.set_xlabel("reading")
    lower.ticklabel_format(useOffset=False)
    curves = [(upper, "celsius", [], upper.plot([])[0]), (lower, "pascal", [], lower.plot([])[0])]
    numbers = []

    def draw():
        for axes, _, values, line in curves:
            line.set_data(numbers, values)
            axes.relim()
            axes.autoscale_view()

    def add(reading):
        numbers.append(reading["number"])
        for _, name, values, _ in curves:
            values.append(reading[name])
            if not png:
                del values[:-SHOWN]
        if not png:
            del numbers[:-SHOWN]
            draw()
            pyplot.pause(0.001)
            if not pyplot.fignum_exists(figure.number):
                raise KeyboardInterrupt  # the window was closed

    try:
        yield add
    finally:
        if png:
            draw()
            figure.savefig(png, dpi=120)
        pyplot.close(figure)


# -- both at once


def demo():
    stop = threading.Event()
    url = []
    ready = threading.Event()

    def on_ready(where):
        url.append(where)
        ready.set()

    publisher = threading.Thread(
        target=publish, args=(0, 0.01), kwargs={"stop": stop, "on_ready": on_ready}
    )
    publisher.start()
    try:
        ready.wait(10)
        try:
            with WseClient(url[0]) as intruder:
                intruder.connect("a wrong key")
        except NotAuthorized as error:
            print("intruder:", error)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "readings.csv")
            with to_csv(path) as sink:
                print("watch:", watch(url[0], [sink], count=50, period=0.005), "readings")
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            print("file:", len(rows), "rows")
            numbers = [int(row["number"]) for row in rows]
            print("file: none is missing:", numbers == list(range(numbers[0], numbers[0] + 50)))
    finally:
        stop.set()
        publisher.join()
    print("done")


def main():
    parser = argparse.ArgumentParser(description="Publish readings, or watch them.")
    parser.add_argument("--demo", action="store_true", help="do both, and end")
    commands = parser.add_subparsers(dest="command")
    command = commands.add_parser("publish")
    command.add_argument("--port", type=int, default=4300)
    command.add_argument("--period", type=float, default=0.5, help="seconds")
    command = commands.add_parser("watch")
    command.add_argument("url", nargs="?", default="ws://localhost:4300")
    command.add_argument("--csv", metavar="FILE", help="write the readings there")
    command.add_argument("--plot", action="store_true", help="draw them in a window")
    command.add_argument("--png", metavar="FILE", help="draw them there at the end")
    command.add_argument("--count", type=int, help="end after so many readings")
    command.add_argument("--period", type=float, help="have them come so often, seconds")
    options = parser.parse_args()

    if options.demo:
        demo()
        return
    if options.command is None:
        parser.error("publish or watch?")
    with contextlib.suppress(KeyboardInterrupt):
        if options.command == "publish":
            publish(options.port, options.period, on_ready=lambda url: print("publish:", url))
            return
        with contextlib.ExitStack() as stack:
            sinks = []
            if options.csv:
                sinks.append(stack.enter_context(to_csv(options.csv)))
            if options.plot or options.png:
                sinks.append(stack.enter_context(to_plot(png=options.png)))
            watch(
                options.url,
                sinks or [to_lines],
                count=options.count,
                period=options.period,
            )


if __name__ == "__main__":
    main()
