"""Code in Markdown, run as a reader would run it. README.md and the pages of docs/ come this way.

A Python block whose first line is a file's name, ``# server.py``, is a program and runs as a
process of its own; one that says "until Ctrl-C" is a server and gets its Ctrl-C at the end.
Every other Python block is a fragment. Ports are replaced by free ones.
"""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .process import environment
from .timing import seconds

PORTS = ("4200", "8888")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\n*# (\w+\.py)(, a module)?\n")


class Block(NamedTuple):
    """A piece of code.

    Attributes:
        language: What stands behind the fence.
        heading: The second-level heading above it, or "".
        code: The code, behind as many newlines as lines before it: a traceback tells the line of
            the page.
    """

    language: str
    heading: str
    code: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        match = _FILE.match(self.code)
        return match[1] if match else None

    @property
    def is_module(self) -> bool:
        """Whether that file is to be imported, not started."""
        match = _FILE.match(self.code)
        return bool(match and match[2])


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        headings = re.findall(r"^## (.+)$", text[: match.start()], re.MULTILINE)
        lines_before = text.count("\n", 0, match.start(2))
        code = "\n" * lines_before + match[2]
        found.append(Block(match[1], headings[-1] if headings else "", code))
    return found


def with_free_ports(blocks: list[Block]) -> list[Block]:
    """The same, each of the documented ports replaced by one that is free."""
    for port in PORTS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            number = str(free.getsockname()[1])
        blocks = [block._replace(code=block.code.replace(port, number)) for block in blocks]
    return blocks


def start(file: Path, *options: str) -> "subprocess.Popen[str]":
    """Start a program in its own folder."""
    return subprocess.Popen(
        [sys.executable, "-u", *options, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(file.parent),
        cwd=file.parent,
    )


def lines_of(process: "subprocess.Popen[str]", limit: float = 20) -> list[str]:
    """Wait for its good end; the lines it printed."""
    try:
        out, err = process.communicate(timeout=seconds(limit))
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end:\n{out}\n{err}") from None
    assert process.returncode == 0, err
    return out.splitlines()


STRICT = ("-W", "error", "-X", "dev")


@contextmanager
def programs_running(programs: dict[str, str], folder: Path, *options: str) -> Iterator[list[str]]:
    """Start the servers among the programs and run the others to their end.

    Yields:
        The lines that those have printed that end by themselves. The servers still run.
    """
    printed: list[str] = []
    servers = []
    try:
        for name, code in programs.items():
            (folder / name).write_text(code, "utf-8")
            process = start(folder / name, *options)
            if "until Ctrl-C" in code:
                servers.append(process)
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("Listening on"), (name, line)
            else:
                printed += lines_of(process)
        yield printed
    finally:
        for process in servers:
            process.send_signal(signal.SIGINT)
        ends = [process.communicate(timeout=seconds(10)) for process in servers]
        codes = [process.returncode for process in servers]
    assert codes == [0] * len(servers), ends
    for _, err in ends:
        assert "KeyboardInterrupt" not in err, err
