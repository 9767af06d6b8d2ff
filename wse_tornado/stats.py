"""The counters behind ``stats()``, always on. Plain numbers, incremented on the loop thread.

What other threads send directly is counted by the transport and added when ``stats()`` is called.
"""

from __future__ import annotations

from typing import Any

from .errors import Reason

__all__ = ["Counters"]

_KNOWN_REASONS = frozenset(reason.value for reason in Reason if reason)


class Counters:
    """Totals of one server or one client since it was created."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "calls_disconnected",
        "calls_failed",
        "calls_forgotten",
        "calls_ok",
        "closings",
        "messages_in",
        "messages_out",
        "served_failed",
        "served_ok",
        "served_refused",
        "served_unknown",
    )

    def __init__(self) -> None:
        self.messages_in = self.messages_out = 0
        self.bytes_in = self.bytes_out = 0
        self.served_ok = self.served_failed = self.served_unknown = self.served_refused = 0
        self.calls_ok = self.calls_failed = self.calls_forgotten = self.calls_disconnected = 0
        self.closings: dict[str, int] = {}

    def closed(self, code: int, reason: str) -> None:
        """A connection ended. Only known reasons become part of the key, so that peers cannot add
        any number of keys."""
        key = f"{code} {reason}" if reason in _KNOWN_REASONS else str(code)
        self.closings[key] = self.closings.get(key, 0) + 1

    def as_dict(self) -> dict[str, Any]:
        """The part of ``stats()`` that is totals."""
        return {
            "messages": {"in": self.messages_in, "out": self.messages_out},
            "bytes": {"in": self.bytes_in, "out": self.bytes_out},
            "calls_served": {
                "ok": self.served_ok,
                "failed": self.served_failed,
                "unknown": self.served_unknown,
                "refused": self.served_refused,
            },
            "calls_made": {
                "ok": self.calls_ok,
                "failed": self.calls_failed,
                "forgotten": self.calls_forgotten,
                "disconnected": self.calls_disconnected,
            },
            "closings": dict(self.closings),
        }
