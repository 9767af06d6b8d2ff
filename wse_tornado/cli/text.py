"""What the commands read and write: JSON, terminals, and how errors end a command."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from typing import Any, NoReturn

from ..errors import (
    ConnectionFailed,
    ConnectionNotReady,
    ConnectTimeout,
    NotAuthorized,
    NotSerializable,
    ProtocolError,
    ReceiveTimeout,
    RpcDisconnected,
    RpcError,
    RpcTimeout,
    SendTimeout,
    WaitTimeout,
    WseError,
)

DONE, OTHER, USAGE = 0, 1, 2
REFUSED, UNREACHABLE, TIMED_OUT, REMOTE_ERROR, LOST = 3, 4, 5, 6, 7
INTERRUPTED, OUTPUT_GONE = 130, 141

# The first that fits counts.
EXIT_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((NotAuthorized,), REFUSED),
    ((RpcTimeout, ReceiveTimeout, SendTimeout, WaitTimeout), TIMED_OUT),
    ((ConnectTimeout, ConnectionFailed, ProtocolError), UNREACHABLE),
    ((RpcDisconnected, ConnectionNotReady), LOST),
    ((RpcError,), REMOTE_ERROR),
    ((NotSerializable,), USAGE),
)


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    return next((code for kinds, code in EXIT_CODES if isinstance(error, kinds)), OTHER)


def read_json(text: str) -> Any:
    """A value from JSON as the wire has it (docs/wire.md 2).

    Raises:
        ValueError: It is not valid JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        hint = "; a string needs quotes of its own, as in '\"hi\"'" if text[:1].isalpha() else ""
        raise ValueError(f"not JSON: {exc}{hint}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def can_ask() -> bool:
    """Whether there is a person at a terminal to ask."""
    if sys.stdin is not None and sys.stdin.isatty():
        return True
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ask(what: str) -> str:
    """Ask the person at the terminal, without an echo.

    Raises:
        KeyboardInterrupt: There is no answer: Ctrl-C or Ctrl-D.
    """
    try:
        return getpass.getpass(f"{what}: ")
    except EOFError:
        raise KeyboardInterrupt from None


# -- what is written


def plain(text: str) -> str:
    """Text from a peer, without the control characters that a terminal would act on."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON that every terminal and every encoding can show."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    text = json.dumps(value, ensure_ascii=encoding != "utf8", indent=indent)
    # Control characters above ASCII, and surrogates that UTF-8 cannot hold. They stand in strings.
    return re.sub("[\x7f-\x9f\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def tell(text: str) -> None:
    """Write a remark to standard error."""
    print(f"wse-tornado: {plain(text)}", file=sys.stderr, flush=True)  # noqa: T201


def tell_error(error: WseError) -> None:
    """Write an error to standard error; of a remote error also its code and details."""
    if isinstance(error, RpcError) and exit_code(error) == REMOTE_ERROR:
        tell(f"{error} [{error.code}]")
        if error.details:
            tell(f"details: {json.dumps(error.details, default=str)}")
    else:
        tell(str(error))


def write_line(text: str) -> None:
    """Write one line of the result, at once."""
    print(text, flush=True)  # noqa: T201
