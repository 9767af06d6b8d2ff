"""The commands of a client."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..blocking.client import WseClient
from ..blocking.loop import Deadline
from ..challenge import HmacSolver
from ..errors import ErrorCode, NotAuthorized, ReceiveTimeout
from ..limits import Limits
from ..protocol import Message
from .shell import Shell
from .text import DONE, ask, can_ask, tell, to_json, write_line

__all__ = ["call", "listen", "send", "shell"]

DEFAULT_TIMEOUT = 20.0
# Output may be slower than the server for a while; past this, `listen` says what it missed.
MAX_WAITING_MESSAGES = 100_000


def check_usable(options: argparse.Namespace) -> WseClient:
    """The client that the options describe, not connected yet.

    Raises:
        SystemExit: With 2, the URL or an option makes no sense.
    """
    try:
        client = WseClient(
            options.url,
            timeout=options.timeout or DEFAULT_TIMEOUT,
            reconnect=options.reconnect,
            limits=Limits(max_inbox=MAX_WAITING_MESSAGES),
        )
    except ValueError as exc:
        options.parser.error(str(exc))
    if options.identity is None:
        options.identity = os.environ.get("WSE_IDENTITY") or None
    if options.secret is None:
        options.secret = os.environ.get("WSE_SECRET") or None
    if options.identity is None and not can_ask():
        options.parser.error("no identity: set WSE_IDENTITY, or give --identity")
    return client


@contextmanager
def connected(options: argparse.Namespace) -> Iterator[WseClient]:
    """A client that is in, closed at the end.

    Raises:
        WseError: As `WseClient.connect` does.
        SystemExit: With 2, the URL or an option makes no sense.
    """
    with check_usable(options) as client:
        client.when.error(lambda error: tell(str(error)))
        identity = ask("Identity") if options.identity is None else options.identity
        if options.secret is not None:
            client.challenge(HmacSolver(options.secret))
        try:
            client.connect(identity, options.meta)
        except NotAuthorized as error:
            if error.code != ErrorCode.INVALID_CRA_HANDLER or options.secret is not None:
                raise
            if not can_ask():
                raise NotAuthorized(
                    error.code,
                    {},
                    "the server sets a challenge: set WSE_SECRET, or give --secret",
                ) from None
            # Asked here and not in the solver: only the main thread hears Ctrl-C, and gives the
            # terminal its echo back.
            client.challenge(HmacSolver(ask("Secret")))
            client.connect(identity, options.meta)
        yield client


def call(options: argparse.Namespace) -> int:
    """``call URL NAME [JSON]``"""
    with connected(options) as client:
        result = client.call(options.name, options.payload)
        write_line(to_json(result, indent=2 if sys.stdout.isatty() else None))
    return DONE


def send(options: argparse.Namespace) -> int:
    """``send URL TYPE [JSON]``"""
    with connected(options) as client:
        client.send(options.type, options.payload)
    return DONE


def listen(options: argparse.Namespace) -> int:
    """``listen URL``"""
    wanted = frozenset(options.types or ())
    left = options.count
    missed = 0
    with connected(options) as client:
        client.when.closed(
            lambda code, reason: (
                tell(f"connection lost: {code} {reason}") if options.reconnect else None
            )
        )
        while left is None or left > 0:
            deadline = Deadline(options.timeout)
            while True:
                message = _receive(client, deadline)
                if not wanted or message.type in wanted:
                    break
            write_line(to_json({"type": message.type, "payload": message.payload}))
            if left is not None:
                left -= 1
            dropped = client.stats()["inbox_dropped"]
            if dropped != missed:
                tell(f"{dropped - missed} messages were missed: the output is too slow")
                missed = dropped
    return DONE


def _receive(client: WseClient, deadline: Deadline) -> Message:
    try:
        return client.receive(timeout=deadline.left())
    except ReceiveTimeout as exc:
        raise ReceiveTimeout(
            exc.code, exc.details, f"no message came within {deadline.seconds:g} s"
        ) from None


def shell(options: argparse.Namespace) -> int:
    """``shell URL``"""
    with connected(options) as client:
        return Shell(client, history=options.history, stays=options.reconnect).run()
