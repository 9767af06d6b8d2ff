"""The browser client beside the socket: where it is, how browsers keep it, what it leaves alone."""

import http.client
import json
import re
from pathlib import Path

import pytest

import wse_tornado
from wse_tornado import AsyncWseServer, errors
from wse_tornado.aio.script import script_path

from ..support import RawPeer, seconds, serve

SCRIPT = Path(wse_tornado.__file__).parent / "static" / "wse.js"


def fetch(port, path, method="GET", headers=None):
    """One request of its own: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds(10))
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_a_server_of_its_own_serves_the_script_and_the_socket(flavour):
    with serve(flavour) as served:
        for path in ("/wse.js", "/ws/wse.js", "/wse.js?v=1"):
            status, headers, body = fetch(served.port, path)
            assert status == 200
            assert headers["Content-Type"] == "text/javascript; charset=utf-8"
            assert body == SCRIPT.read_bytes()
        for path in ("/", "/ws", "/any/where", "/notwse.js"):
            assert fetch(served.port, path)[0] == 400  # it wants a WebSocket there
            with served.peer(path=path) as peer:
                peer.hi("alice")
                assert peer.recv_message()[0] == "~wse:welcome"


def test_browsers_keep_it_and_ask_whether_it_has_changed(flavour):
    with serve(flavour) as served:
        _, headers, _ = fetch(served.port, "/wse.js")
        assert headers["Cache-Control"] == "no-cache"
        again = {"If-None-Match": headers["ETag"]}
        status, headers, body = fetch(served.port, "/wse.js", headers=again)
        assert (status, body) == (304, b"")
        status, headers, body = fetch(served.port, "/wse.js", "HEAD")
        assert (status, body) == (200, b"")
        assert int(headers["Content-Length"]) == SCRIPT.stat().st_size
        assert fetch(served.port, "/wse.js", "POST")[0] == 405


def test_pages_of_other_origins_may_import_it(flavour):
    with serve(flavour) as served:
        _, headers, _ = fetch(served.port, "/wse.js", headers={"Origin": "https://example.com"})
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_path_with_groups_keeps_its_arguments():
    def identify(auth):
        auth.accept(auth.identity, auth.handler.path_args)

    with serve("blocking", path=r"/rooms/(\w+)", identify=identify) as served:
        assert fetch(served.port, "/rooms/kitchen/wse.js")[0] == 200
        assert fetch(served.port, "/rooms/wse.js")[0] == 404
        with RawPeer.connect(served.port, path="/rooms/kitchen") as peer:
            peer.hi("alice")
            assert peer.recv_message() == ["~wse:welcome", ["kitchen"], None]


@pytest.mark.parametrize(
    ("path", "found", "not_found"),
    [
        (r"/ws", ["/ws/wse.js"], ["/wse.js", "/wswse.js", "/ws/x/wse.js", "/ws/wse.js/x"]),
        (r"/ws/?", ["/ws/wse.js"], ["/wse.js"]),
        (r"/ws/", ["/ws/wse.js"], ["/wse.js"]),
        (r"^/ws$", ["/ws/wse.js"], ["/wse.js"]),
        (r"/", ["/wse.js"], ["/ws/wse.js"]),
        (r"/.*", ["/wse.js", "/ws/wse.js"], ["/notwse.js", "/wse_js", "/wsexjs"]),
        (r"/a|/b", ["/a/wse.js", "/b/wse.js"], ["/a", "/wse.js"]),
        (r"(?i)/ws", ["/ws/wse.js", "/WS/wse.js"], ["/x/wse.js"]),
        (r"/rooms/(?P<room>\w+)$", ["/rooms/a/wse.js"], ["/rooms/wse.js"]),
        (r"/price\$", ["/price$/wse.js"], ["/price/wse.js"]),
    ],
)
def test_it_is_one_level_below_the_path(path, found, not_found):
    pattern = re.compile(script_path(path))
    assert all(pattern.match(where) for where in found)
    assert not any(pattern.match(where) for where in not_found)
    assert len(AsyncWseServer().routes(path)) == 2  # Tornado takes both


@pytest.mark.parametrize(
    ("name", "enum"),
    [("ERROR", errors.ErrorCode), ("REASON", errors.Reason), ("STATUS", errors.Status)],
)
def test_its_names_are_those_of_python(name, enum):
    text = re.search(rf"WSE_{name} = Object.freeze\(\{{(.*?)\}}\)", SCRIPT.read_text(), re.S)[1]
    names = json.loads("{" + re.sub(r"(\w+): (\".*?\"),", r'"\1": \2,', text).rstrip(" ,\n") + "}")
    assert names.items() <= {member.name: member.value for member in enum}.items()
    assert names
