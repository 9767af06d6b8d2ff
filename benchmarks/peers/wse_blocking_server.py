"""This library's blocking server: ``add`` inline on the loop, ``add-worker`` on its threads."""

from __future__ import annotations

import sys
from typing import Any

from ..control import obey, report
from ..cores import raise_file_limit
from . import flavour

flavour.choose(sys.argv)

from wse_tornado import WseServer  # noqa: E402

from .minimal import WELCOME, add, identify  # noqa: E402


def judge(auth: Any) -> None:
    if identify(auth.identity):
        auth.accept(auth.identity, WELCOME)
    else:
        auth.refuse()


server = WseServer(port=0, host="127.0.0.1", identify=judge)


@server.register("add", inline=True)
def inline_add(conn: Any, payload: dict[str, int]) -> int:
    return add(payload)


@server.register("add-worker")
def worker_add(conn: Any, payload: dict[str, int]) -> int:
    return add(payload)


if __name__ == "__main__":
    raise_file_limit()
    server.start()
    report(port=server.port)
    obey()
