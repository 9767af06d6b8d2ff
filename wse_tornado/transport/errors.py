"""How the peer can break the rules of a WebSocket (RFC 6455 7.4.1)."""

from __future__ import annotations

__all__ = ["INVALID_DATA", "PROTOCOL_ERROR", "TOO_BIG", "FrameError"]

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
TOO_BIG = 1009


class FrameError(Exception):
    """The peer broke a rule; close with ``code`` and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
