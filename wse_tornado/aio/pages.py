"""Pages beside a server's own socket: the order of the rules. Nothing here knows of connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Rule, URLSpec

__all__ = ["PageRule", "check_rules", "with_pages"]

# As in the list that ``tornado.web.Application`` takes: ``(r"/", MainHandler, {"argument": 1})``.
PageRule: TypeAlias = Rule | tuple[Any, ...] | list[Any]


class HandshakeMatches(PathMatches):
    """A path, for those only who want a WebSocket there (RFC 6455 4.2.1)."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """The groups of the path, as `PathMatches` has them, or None."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return None
        return super().match(request)


def check_rules(handlers: Iterable[PageRule]) -> list[PageRule]:
    """The rules as a list, which can be used again.

    Raises:
        TypeError: It is something else; Tornado would only say that an assertion failed.
    """
    rules = [] if isinstance(handlers, (str, Rule)) else list(handlers)
    if isinstance(handlers, (str, Rule)) or not all(
        isinstance(rule, Rule) or (isinstance(rule, (tuple, list)) and 2 <= len(rule) <= 4)
        for rule in rules
    ):
        raise TypeError(
            f'handlers= takes a list of rules such as (r"/", MainHandler), not {handlers!r}'
        )
    return rules


def with_pages(routes: list[URLSpec], handlers: Iterable[PageRule]) -> list[Any]:
    """The rules of an application with pages: a page and the socket may have the same path.

    Args:
        routes: The script and the socket, as ``AsyncWseServer.routes`` has them.
        handlers: The rules of the pages.
    """
    script, sock = routes
    handshake = Rule(HandshakeMatches(sock.regex), sock.handler_class, sock.kwargs)
    return [script, handshake, *check_rules(handlers), sock]
