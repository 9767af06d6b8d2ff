"""The control channel from the side that measures: start a process, ask it, end it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from .cores import pin

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
ANSWER_SECONDS = 30.0


class ProcessFailed(Exception):
    """A process under test did not do what it was told."""


class Process:
    """``python -m <module> <arguments>`` on a core of its own.

    It has reported once when `ready` returns; `hello` is what it said. It ends with the context.
    """

    def __init__(self, module: str, *arguments: str, core: int | None) -> None:
        self.module = module
        self.hello: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=lambda: pin(core),
        )

    def ready(self) -> Process:
        """Wait for its first line."""
        if not self.hello:
            self.hello = self._read(START_SECONDS)
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.ready().hello["port"])

    def ask(self, do: str, *, timeout: float = ANSWER_SECONDS, **arguments: Any) -> Any:
        """Have it do something and return the result.

        Raises:
            ProcessFailed: It raised, died, or did not answer in time.
        """
        self.ready()
        self.tell(do, **arguments)
        return self.answer(timeout)

    def tell(self, do: str, **arguments: Any) -> None:
        """The first half of `ask`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise ProcessFailed(f"{self.module} has ended: {exc}") from exc

    def answer(self, timeout: float = ANSWER_SECONDS) -> Any:
        """The second half of `ask`."""
        reply = self._read(timeout)
        if "error" in reply:
            raise ProcessFailed(f"{self.module}: {reply['error']}")
        return reply["result"]

    def _read(self, timeout: float) -> dict[str, Any]:
        # One line is asked for at a time, so nothing of a next line is ever in the buffer.
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], timeout)[0]:
            raise ProcessFailed(f"{self.module} said nothing for {timeout:g} s")
        line = stdout.readline()
        if not line:
            raise ProcessFailed(f"{self.module} ended with {self._process.wait(10)}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self) -> None:
        """Hang up; kill it if that is not enough."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Process:
        return self.ready()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()
