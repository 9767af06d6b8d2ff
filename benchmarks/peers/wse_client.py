"""This library's blocking client."""

from __future__ import annotations

import sys

from . import flavour

flavour.choose(sys.argv[:2])

from wse_tornado import WseClient  # noqa: E402

from .caller import ARGUMENT, serve_commands  # noqa: E402

if __name__ == "__main__":
    client = WseClient(f"ws://127.0.0.1:{sys.argv[2]}")
    client.connect("user-1")
    serve_commands(lambda: client.call("add", ARGUMENT))
