"""Every Python block of README.md runs, section by section.

A block that begins with a file's name is a program and runs as a process of its own, as a reader
would start it; one that says "until Ctrl-C" is a server and gets its Ctrl-C at the end. All other
blocks of a section run in one namespace, after the Quick Start's server and client, which the
README says they go on from. Ports are replaced by free ones, and ``print`` collects whole lines
(it may be called from several threads); nothing else is changed.
"""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import wse_tornado
from wse_tornado import WseClient

from .conftest import require
from .support import seconds, wait_until

README = Path(__file__).parents[1] / "README.md"
PORTS = ("4200", "8888")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"# (\w+\.py)\n")

# What the programs and the fragments print, among other things.
TELLING = {
    "Quick Start": [
        "Connected: Welcome!",
        "Server says: Hello back!",
        "5 + 3 = 8",
        "Announcement: Server is ready!",
        "note two",
    ],
    "On Your Own Tornado Loop": ["Connected: Welcome!", "5 + 3 = 8"],
    "Custom Protocol": [r"{'photo': b'\x89PNG'}"],
    "Error Handling": ["shop.sold-out tea", "True"],
    "Performance Optimization": ["42"],
    "Multi-Device Messaging": ["battery: 80"],
    "Reconnecting": ["now READY"],
}


def read_sections() -> dict[str, list[str]]:
    """The blocks by second-level heading, each behind as many newlines as lines before it."""
    text = README.read_text("utf-8")
    found: dict[str, list[str]] = {}
    for match in BLOCK.finditer(text):
        heading = re.findall(r"^## (.+)$", text[: match.start()], re.MULTILINE)[-1]
        lines_before = text.count("\n", 0, match.start(1))
        found.setdefault(heading, []).append("\n" * lines_before + match[1])
    return found


SECTIONS = read_sections()


def with_free_ports(blocks: list[str]) -> list[str]:
    for port in PORTS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            number = str(free.getsockname()[1])
        blocks = [block.replace(port, number) for block in blocks]
    return blocks


def run_programs(programs: dict[str, str], folder: Path) -> list[str]:
    """Run them as processes; the lines that those have printed that end by themselves."""
    environ = {**os.environ, "PYTHONPATH": str(Path(wse_tornado.__file__).parents[1])}
    printed: list[str] = []
    servers = []
    try:
        for name, code in programs.items():
            (folder / name).write_text(code, "utf-8")
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-X", "dev", str(folder / name)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environ,
            )
            if "until Ctrl-C" in code:
                servers.append(process)
                numbers = re.findall(r"port=(\d+)|listen\((\d+)", code)[0]
                wait_until(lambda: listens(int("".join(numbers))), 10, name)  # noqa: B023
            else:
                out, err = process.communicate(timeout=seconds(20))
                assert process.returncode == 0, err
                printed += out.splitlines()
    finally:
        for process in servers:
            process.send_signal(signal.SIGINT)
        ends = [process.communicate(timeout=seconds(10))[1] for process in servers]
    for err in ends:
        assert err.rstrip().endswith("KeyboardInterrupt"), err
    return printed


def listens(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=1).close()
    except OSError:
        return False
    return True


def run_fragments(fragments: list[str], printed: list[str]) -> None:
    """Run them in this process, in one namespace with a running server and a connected client."""
    opening = SECTIONS["Quick Start"][0].replace("port=4200", "port=0")
    namespace: dict[str, object] = {
        "__name__": "readme",
        "print": lambda *words: printed.append(" ".join(map(str, words))),
    }
    exec(compile(opening.split("with server:")[0], README, "exec"), namespace)
    server = namespace["server"]
    with server, WseClient(server.url) as client:  # type: ignore[attr-defined]
        client.connect("your-secret-key", {"device": "laptop"})
        namespace["client"] = client
        namespace["WseClient"] = WseClient
        for fragment in fragments:
            exec(compile(fragment, README, "exec"), namespace)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_code_of_a_section_runs(heading, tmp_path):
    if any("wse_tornado.msgpack" in block for block in SECTIONS[heading]):
        require(importlib.util.find_spec("msgpack") is not None, "msgpack")
    programs, fragments = {}, []
    for block in with_free_ports(SECTIONS[heading]):
        if name := PROGRAM.match(block.lstrip("\n")):
            programs[name[1]] = block
        else:
            fragments.append(block)
    printed = run_programs(programs, tmp_path)
    if fragments:
        run_fragments(fragments, printed)
    for line in TELLING.get(heading, []):
        wait_until(lambda: line in printed, 5, f"{line!r} in {printed}")  # noqa: B023


def test_links_lead_to_files():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text("utf-8")):
        assert (README.parent / link).exists(), link


def test_the_headings_of_the_original_are_here():
    headings = re.findall(r"^#+ (.+)$", README.read_text("utf-8"), re.MULTILINE)
    for heading in (
        "Quick Start",
        "Server Setup",
        "Client Setup",
        "Challenge-Response Authentication (CRA)",
        "Integration with Existing HTTP Servers",
        "Custom Protocol",
        "Error Handling",
        "Performance Optimization",
        "Broadcasting Messages",
        "Multi-Device Messaging",
        "License",
    ):
        assert heading in headings
