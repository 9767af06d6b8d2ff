"""The only place of the benchmarks that looks behind the public API."""

from __future__ import annotations

import gc
from typing import Any

KINDS = frozenset(
    [
        "ServerConnection",
        "ClientConnection",
        "WseClient",
        "AsyncWseClient",
    ]
)


def objects() -> int:
    """Connections and clients that somebody still holds, open or not."""
    gc.collect()
    kinds = {type(one) for one in gc.get_objects() if type(one).__name__ in KINDS}
    ours = {kind for kind in kinds if kind.__module__.startswith("wse_tornado")}
    return sum(1 for one in gc.get_objects() if type(one) in ours)


def abort(client: Any) -> None:
    """Have a client of either flavour vanish without a goodbye."""
    loop = getattr(client, "_loop", None)
    if loop is not None:
        loop.post(client._connector.abort)
    else:
        client._connector.abort()


def cut_connection(conn: Any) -> None:
    """Cut the socket of an async server's connection."""
    conn._conn.abort()
