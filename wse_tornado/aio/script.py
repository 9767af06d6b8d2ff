"""The browser client, served beside the socket. Nothing here knows of connections."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files

from tornado.web import RequestHandler

__all__ = ["ScriptHandler", "script_path"]

NAME = "wse.js"
_LEADING_FLAGS = re.compile(r"\(\?[a-zA-Z]+\)")


def script_path(path: str) -> str:
    """The regular expression under which the script of a socket at ``path`` is: one level below.

    ``/ws`` gives what matches ``/ws/wse.js``, ``/.*`` what matches ``/wse.js`` and ``/ws/wse.js``.
    """
    flags = _LEADING_FLAGS.match(path)  # Python takes them nowhere but in front
    start = flags.end() if flags else 0
    body = path[start:]
    if body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2:
        body = body[:-1]
    return rf"{path[:start]}(?:{body})/?(?<=/){re.escape(NAME)}$"


@lru_cache(maxsize=1)
def _script() -> bytes:
    return (files("wse_tornado") / "static" / NAME).read_bytes()


class ScriptHandler(RequestHandler):
    """Gives out ``wse.js``. The arguments of the path, if it has any, do not matter to it."""

    def get(self, *args: str, **kwargs: str) -> None:
        """The module; Tornado adds the ETag and answers 304 to who has it."""
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        # Kept by browsers, but asked for again: another version of the library may be served.
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
        # Pages of other origins may import it, as they may have any public script. Whether they
        # may connect is for the socket's origin check.
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.write(_script())

    head = get
