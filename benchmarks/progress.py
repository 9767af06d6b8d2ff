"""A progress bar on stderr."""

from __future__ import annotations

import shutil
import sys
import time


class Progress:
    """Shows how far the work is; on something that is no terminal, a line at every tenth."""

    def __init__(self, total: int) -> None:
        self._total = max(1, total)
        self._done = 0
        self._start = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._tenth = -1

    def show(self, what: str) -> None:
        """Say what is being done now."""
        share = min(1.0, self._done / self._total)
        seconds = time.monotonic() - self._start
        if self._terminal:
            bar = "#" * int(24 * share)
            line = f"[{bar:.<24}] {share:4.0%} {seconds:4.0f} s  {what}"
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r{line[:width]:<{width}}")
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            sys.stderr.write(f"{share:4.0%} {seconds:4.0f} s  {what}\n")
        sys.stderr.flush()

    def step(self, count: int = 1) -> None:
        """So much more is done."""
        self._done += count

    def end(self) -> None:
        """Leave the line."""
        if self._terminal:
            sys.stderr.write("\n")
