"""What has to be reached: ratios of this library to its peers, medians over rounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One cell of the table of targets.

    Attributes:
        workload: On this work,
        ours: this flavour of the library
        limit: may cost at most so many times
        theirs: what this peer costs.
        figure: In this figure instead of the one that counts for that work.
    """

    workload: str
    ours: str
    limit: float
    theirs: str
    figure: str | None = None


TARGETS = (
    Target("call-1", "wse-fast", 0.22, "tornado"),
    Target("call-1", "wse-fast", 0.45, "websockets"),
    Target("call-1", "wse-fast", 1.5, "picows"),
    Target("call-1", "wse-plain", 0.60, "tornado"),
    Target("call-32", "wse-fast", 0.30, "tornado"),
    Target("call-32", "wse-fast", 1.2, "picows"),
    Target("call-32", "wse-plain", 0.35, "tornado"),
    Target("broadcast", "wse-fast", 0.40, "tornado"),
    Target("broadcast", "wse-fast", 1.0, "websockets"),
    Target("broadcast", "wse-plain", 0.6, "tornado"),
    Target("script", "wse-fast", 1.0, "websocket-client"),
    Target("script", "wse-fast", 0.3, "socketio"),
    Target("script", "wse-plain", 1.0, "websockets-sync"),
    Target("connect", "wse-fast", 1.1, "tornado"),
    Target("connect", "wse-plain", 1.1, "tornado"),
    Target("memory", "wse-fast", 1.5, "tornado"),
    Target("memory", "wse-plain", 1.5, "tornado"),
    Target("echo-1-MB", "wse-fast", 1.3, "picows"),
    Target("connect-tls", "wse-fast", 1.1, "tornado"),
    Target("connect-tls", "wse-plain", 1.1, "tornado"),
    Target("call-1-tls", "wse-fast", 0.6, "websockets"),
    Target("call-32-tls", "wse-fast", 0.4, "websockets"),
    Target("script-tls", "wse-fast", 1.0, "websocket-client"),
    Target("script-tls", "wse-fast", 1.1, "websocket-client", "cpu"),
)
