"""The entry point: the parser of all commands, and the exit code of each end."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..errors import WseError
from ..events import check_user_type
from ..rpc import check_rpc_name
from .client import call, listen, send, shell
from .playground import serve
from .text import INTERRUPTED, OUTPUT_GONE, exit_code, read_json, tell_error

__all__ = ["main"]

DEFAULT_PORT = 4200

EPILOG = """\
exit codes:
  0    done
  1    anything else, such as a port that is taken
  2    usage error, or invalid JSON
  3    refused: the server does not let this identity in
  4    unreachable: no connection, or none in time
  5    timed out: no answer, or no message, in time
  6    remote error: the procedure failed, or there is none of that name
  7    connection lost
  130  Ctrl-C
  141  the reader of the output is gone

environment:
  WSE_IDENTITY  the identity, where --identity is not given
  WSE_SECRET    the challenge's secret, where --secret is not given
  WSE_KEY       the key of serve, where --key is not given
Options are visible in the list of processes, the environment is not. At a terminal, a missing
identity or secret is asked for without an echo.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name; those of the process by default.

    Returns:
        The exit code.

    Raises:
        SystemExit: With 2 on wrong usage, with 0 after ``--help``.
    """
    try:
        options = build_parser().parse_args(argv)
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nothing may be written at the interpreter's exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_GONE
    except WseError as error:
        tell_error(error)
        return exit_code(error)


# -- arguments


def _argument(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let argparse show the message of a ValueError."""

    def argument(text: str) -> Any:
        try:
            return read(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return argument


@_argument
def _payload(text: str) -> Any:
    return read_json(sys.stdin.read() if text == "-" else text)


@_argument
def _meta(text: str) -> dict[str, Any]:
    meta = read_json(text)
    if not isinstance(meta, dict):
        raise ValueError("not a JSON object")
    return meta


@_argument
def _seconds(text: str) -> float:
    seconds = float(text)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError("a time-out is a number of seconds above 0")
    return seconds


@_argument
def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError("a count is at least 1")
    return count


@_argument
def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return port


@_argument
def _name(text: str) -> str:
    check_rpc_name(text)
    return text


@_argument
def _type(text: str) -> str:
    check_user_type(text, {}, "type")
    return text


# -- the parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="wse-tornado",
        description="Serve, call, send and listen over authenticated WebSockets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], help: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=command, parser=sub)
        return sub

    sub = add("serve", serve, "run a playground server")
    sub.add_argument("--host", default="localhost", help="where to listen (default: %(default)s)")
    sub.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    sub.add_argument(
        "--key",
        help='accept this identity only, as the user named in its meta ({"user": ...}); without a '
        "key every non-empty identity is accepted, and is the user's name",
    )
    sub.add_argument("--secret", help="challenge clients: they must know this secret")
    sub.add_argument(
        "--origin",
        dest="origins",
        action="append",
        metavar="ORIGIN",
        help="a web page's origin that may connect, such as https://example.com; repeatable",
    )

    sub = add("call", call, "call a procedure and print its result as JSON")
    _add_client_arguments(sub)
    sub.add_argument("name", metavar="NAME", type=_name, help="the procedure")
    _add_payload(sub)

    sub = add("send", send, "send a message")
    _add_client_arguments(sub)
    sub.add_argument("type", metavar="TYPE", type=_type, help="the message's type")
    _add_payload(sub)

    sub = add("listen", listen, "print messages as lines of JSON")
    _add_client_arguments(
        sub,
        timeout="seconds to connect (default: 20), and seconds without a message "
        "after which it exits with 5 (default: never)",
    )
    sub.add_argument(
        "--type",
        dest="types",
        action="append",
        type=_type,
        metavar="TYPE",
        help="print messages of this type only; repeatable",
    )
    sub.add_argument("--count", type=_count, metavar="N", help="end after N messages")

    sub = add("shell", shell, "call and send interactively")
    _add_client_arguments(sub)
    sub.add_argument(
        "--history",
        default=os.path.join("~", ".wse_tornado_history"),
        metavar="FILE",
        help='where commands are kept for the next time; "" keeps none (default: %(default)s)',
    )
    return parser


def _add_client_arguments(
    parser: argparse.ArgumentParser,
    *,
    timeout: str = "seconds to connect, and to wait for an answer (default: 20)",
) -> None:
    parser.add_argument("url", metavar="URL", help="such as ws://localhost:4200")
    parser.add_argument("--identity", metavar="TEXT", help="the identity to present")
    parser.add_argument("--secret", metavar="TEXT", help="answers the server's challenge")
    parser.add_argument(
        "--meta", type=_meta, metavar="JSON", help="a JSON object that describes this device"
    )
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=timeout)
    parser.add_argument(
        "--reconnect",
        action="store_true",
        help="try again while the server cannot be reached, and come back after a loss",
    )


def _add_payload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "payload",
        metavar="JSON",
        nargs="?",
        type=_payload,
        help='the payload (default: null); "-" reads it from standard input',
    )
