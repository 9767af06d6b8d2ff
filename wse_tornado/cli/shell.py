"""The interactive ``shell`` of the command line: a prompt, messages as they come, completion.

It is given a client that is connected, and knows nothing of how that came about.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from ..blocking.client import WseClient
from ..errors import CloseCode, ConnectionNotReady, Reason, RpcDisconnected, Status, WseError
from .text import (
    DONE,
    INTERRUPTED,
    LOST,
    USAGE,
    exit_code,
    plain,
    read_json,
    tell,
    tell_error,
    to_json,
)

try:
    import readline
except ImportError:  # not on every system; then there is neither history nor completion
    readline = None  # type: ignore[assignment]

__all__ = ["Shell"]

PROMPT = "wse> "
COMMANDS = ("call", "send", "help", "quit")
HELP = """\
call NAME [JSON]   call a procedure and show its result
send TYPE [JSON]   send a message
help               show this
quit               leave; so does Ctrl-D
Messages show as they come, behind a "<". Ctrl-C gives up a call. Tab completes names."""
MAX_HISTORY = 1000
ONE_LINE = 72


BY_OURSELVES = (CloseCode.NORMAL_CLOSURE, Reason.BY_CLIENT)


class Shell:
    """Reads commands until there are no more.

    At a terminal a failed command is shown and forgotten. Commands from a pipe are a script: all
    of them run, and the exit code is that of the first one that failed.

    Args:
        client: A connected client.
        history: The file of earlier commands; empty for none.
        stays: Go on after a lost connection, because the client comes back.
    """

    def __init__(self, client: WseClient, *, history: str = "", stays: bool = False) -> None:
        self._client = client
        self._history = os.path.expanduser(history)
        self._stays = stays
        self._at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._lock = threading.Lock()
        self._prompting = False
        self._leaving = False
        self._failed = DONE
        self._seen: dict[str, set[str]] = {"call": set(), "send": set()}

    def run(self) -> int:
        """Read and carry out commands.

        Returns:
            The exit code.
        """
        use_readline = self._at_terminal and readline is not None
        if use_readline:
            self._set_up_readline()
        threading.Thread(target=self._show_messages, name="wse-tornado-shell", daemon=True).start()
        try:
            return self._run()
        finally:
            self._leaving = True
            if use_readline:
                self._save_history()

    def _run(self) -> int:
        while True:
            try:
                line = self._read()
                if line is None:
                    break
                if not self._carry_out(line):
                    break
            except KeyboardInterrupt:
                if not self._at_terminal:
                    return INTERRUPTED
                self._show("")
            except (ConnectionNotReady, RpcDisconnected) as error:
                tell_error(error)
                if not self._stays:
                    return LOST
                self._note_failure(LOST)
            except WseError as error:
                tell_error(error)
                self._note_failure(exit_code(error))
            except ValueError as error:
                tell(str(error))
                self._note_failure(USAGE)
        if self._failed:
            return self._failed
        return DONE if self._client.status in (Status.READY, Status.RE_CONNECTING) else LOST

    def _note_failure(self, code: int) -> None:
        if not self._at_terminal and not self._failed:
            self._failed = code

    def _read(self) -> str | None:
        """The next line, None at the end."""
        if not self._at_terminal:
            return sys.stdin.readline() or None
        self._prompting = True
        try:
            return input(PROMPT)
        except EOFError:
            return None
        finally:
            self._prompting = False

    def _carry_out(self, line: str) -> bool:
        """Do what a line says. False if it says to leave."""
        command, *rest = line.split(None, 2) or [""]
        if command in ("quit", "exit"):
            return False
        if command == "help":
            self._show(HELP)
        elif command in ("call", "send"):
            if not rest:
                raise ValueError(f"{command} what? See help")
            payload = read_json(rest[1]) if len(rest) > 1 else None
            if command == "call":
                self._show(pretty(self._client.call(rest[0], payload)))
            else:
                self._client.send(rest[0], payload)
            self._seen[command].add(rest[0])
        elif command:
            raise ValueError(f"there is no command {command!r}; see help")
        return True

    # -- showing

    def _show_messages(self) -> None:
        """Show what the server sends, beside whatever else goes on."""
        try:
            for message in self._client:
                self._show(f"< {plain(str(message.type))} {pretty(message.payload)}")
        except WseError:
            pass  # it is told below
        if not self._leaving and self._client.closed_with != BY_OURSELVES:
            self._show("the connection is over; Ctrl-D leaves")

    def _show(self, text: str) -> None:
        """Print above the prompt, and what is being typed behind it again."""
        with self._lock:
            if self._prompting and self._at_terminal:
                typed = readline.get_line_buffer() if readline is not None else ""
                sys.stdout.write(f"\r\x1b[K{text}\n{PROMPT}{typed}")
            else:
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    # -- readline

    def _set_up_readline(self) -> None:
        if "libedit" in (readline.__doc__ or ""):
            readline.parse_and_bind("bind ^I rl_complete")
        else:
            readline.parse_and_bind("tab: complete")
        readline.set_completer_delims(" \t")
        readline.set_completer(self._complete)
        readline.set_history_length(MAX_HISTORY)
        readline.clear_history()
        if self._history:
            try:
                readline.read_history_file(self._history)
            except (OSError, UnicodeDecodeError):  # none yet, or not ours
                pass
        for index in range(readline.get_current_history_length()):
            command, *rest = (readline.get_history_item(index + 1) or "").split(None, 2) or [""]
            if command in self._seen and rest:
                self._seen[command].add(rest[0])

    def _save_history(self) -> None:
        readline.set_completer(None)
        if not self._history:
            return
        try:
            # Payloads may be private.
            os.close(os.open(self._history, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(self._history)
        except OSError as exc:
            tell(f"the history was not kept: {exc}")

    def _complete(self, text: str, state: int) -> str | None:
        """What readline asks: the candidate number ``state`` for the word being typed."""
        before = readline.get_line_buffer()[: readline.get_begidx()].split()
        candidates: Iterable[str] = ()
        if not before:
            candidates = COMMANDS
        elif len(before) == 1:
            candidates = sorted(self._seen.get(before[0], ()))
        fitting = [f"{each} " for each in candidates if each.startswith(text)]
        return fitting[state] if state < len(fitting) else None


def pretty(value: Any) -> str:
    """JSON on one line where it is short, indented where it is not."""
    line = to_json(value)
    return line if len(line) <= ONE_LINE else to_json(value, indent=2)
