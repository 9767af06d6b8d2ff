"""The page of ``serve``: one file, given out with what it has to ask a person for."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

from tornado.web import RequestHandler

__all__ = ["PageHandler"]

ALL_QUESTIONS = 'data-asks="key secret"'  # as the file has it


@lru_cache(maxsize=1)
def _page() -> tuple[str, str]:
    """The file, and a policy that lets nothing run in it but what stands in it."""
    text = (files("wse_tornado") / "static" / "playground.html").read_text("utf-8")
    script, style = (
        " ".join(_source(part) for part in re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.S))
        for tag in ("script", "style")
    )
    return text, (
        f"default-src 'none'; script-src 'self' {script}; style-src {style}; img-src data:; "
        # Older browsers do not take 'self' for a WebSocket of the same origin.
        "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _source(part: str) -> str:
    digest = hashlib.sha256(part.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


class PageHandler(RequestHandler):
    """Gives out ``playground.html``.

    Args:
        asks: What the server wants besides a name: "key", "secret".
    """

    def initialize(self, asks: Iterable[str]) -> None:
        self._asks = asks

    def get(self) -> None:
        """The page."""
        text, policy = _page()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", policy)
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.write(text.replace(ALL_QUESTIONS, f'data-asks="{" ".join(self._asks)}"', 1))

    head = get
