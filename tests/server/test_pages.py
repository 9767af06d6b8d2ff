"""Pages beside a server's own socket: ``handlers`` of `WseServer` and of ``listen``."""

import http.client
import re

import pytest
from tornado.netutil import bind_sockets
from tornado.routing import HostMatches, Rule
from tornado.web import RequestHandler, url

from wse_tornado import AsyncWseServer, WseClient, WseServer

from ..support import RawPeer, seconds, serve


class Hello(RequestHandler):
    def initialize(self, greeting="Hello"):
        self.greeting = greeting

    def get(self, name="you"):
        self.write(f"{self.greeting}, {name}!")

    def post(self):
        self.write(self.request.body)


def fetch(port, path, method="GET", body=None):
    """One request of its own: status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds(10))
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get_in(port, path):
    with RawPeer.connect(port, path=path) as peer:
        peer.hi("alice")
        assert peer.recv_message()[0] == "~wse:welcome"


def test_pages_of_every_kind_of_rule_are_served(flavour):
    rules = [
        (r"/", Hello),
        [r"/(\w+)/hello", Hello, {"greeting": "Good morning"}],
        url(r"/named", Hello, name="named"),
        Rule(HostMatches(r"127\.0\.0\.1"), [(r"/host", Hello, {"greeting": "Host"})]),
    ]
    with serve(flavour, handlers=rules) as served:
        assert fetch(served.port, "/") == (200, "Hello, you!")
        assert fetch(served.port, "/?a=1") == (200, "Hello, you!")
        assert fetch(served.port, "/", "POST", "body") == (200, "body")
        assert fetch(served.port, "/ann/hello") == (200, "Good morning, ann!")
        assert fetch(served.port, "/named") == (200, "Hello, you!")
        assert fetch(served.port, "/host") == (200, "Host, you!")
        assert fetch(served.port, "/absent")[0] == 400  # the socket's, as without pages


def test_a_page_takes_neither_the_socket_nor_the_script_away(flavour):
    with serve(flavour, handlers=[(r"/(.*)", Hello)]) as served:
        assert fetch(served.port, "/ann") == (200, "Hello, ann!")
        assert "class WseClient" in fetch(served.port, "/wse.js")[1]
        for path in ("/", "/ann", "/any/where"):
            get_in(served.port, path)
        with WseClient(served.url) as client:
            client.connect("alice")


def test_a_socket_at_a_path_of_its_own_leaves_the_rest_to_the_pages():
    def identify(auth):
        auth.accept(auth.identity, auth.handler.path_args)

    rules = [(r"/rooms/(\w+)", Hello), (r"/", Hello)]
    with WseServer(
        host="127.0.0.1", path=r"/rooms/(\w+)", identify=identify, handlers=rules
    ) as server:
        assert fetch(server.port, "/") == (200, "Hello, you!")
        assert fetch(server.port, "/rooms/kitchen") == (200, "Hello, kitchen!")
        assert fetch(server.port, "/absent")[0] == 404
        with RawPeer.connect(server.port, path="/rooms/kitchen") as peer:
            peer.hi("alice")
            assert peer.recv_message() == ["~wse:welcome", ["kitchen"], None]


def test_a_blocking_server_serves_its_pages_again_after_a_stop():
    server = WseServer(host="127.0.0.1", identify=lambda auth: "a", handlers=iter([(r"/", Hello)]))
    for _ in range(2):
        with server:
            assert fetch(server.port, "/") == (200, "Hello, you!")


def test_a_page_may_use_the_blocking_server_it_belongs_to():
    class Announce(RequestHandler):
        def post(self):
            self.write(f"{server.broadcast('news', self.request.body.decode())}")

    server = WseServer(
        host="127.0.0.1", identify=lambda auth: auth.identity, handlers=[(r"/news", Announce)]
    )
    with server, WseClient(f"ws://127.0.0.1:{server.port}") as client:
        client.connect("alice")
        assert fetch(server.port, "/news", "POST", "hi") == (200, "1")
        assert client.wait_for("news", timeout=seconds(5)) == "hi"


def test_sockets_that_exist_already_take_pages_too():
    with serve("async") as served:
        sockets = bind_sockets(0, "127.0.0.1")
        served.do(lambda: served.server.add_sockets(sockets, handlers=[(r"/", Hello)]))
        port = sockets[0].getsockname()[1]
        assert fetch(port, "/") == (200, "Hello, you!")
        get_in(port, "/")
        assert fetch(served.port, "/")[0] == 400


def test_a_browser_that_keeps_its_connection_does_not_hold_a_stop_up(flavour):
    with serve(flavour, handlers=[(r"/", Hello)]) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=seconds(10))
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"Hello, you!"
    assert connection.sock.recv(1) == b""
    connection.close()


@pytest.mark.parametrize(
    "handlers", ["/", [Hello], [(r"/",)], [("/", Hello, {}, "name", 1)], Rule(HostMatches("a"), [])]
)
def test_handlers_that_are_no_list_of_rules_raise_at_once(handlers):
    with pytest.raises(TypeError, match=re.escape('(r"/", MainHandler)')):
        WseServer(identify=lambda auth: "a", handlers=handlers)
    with serve("async") as served:
        with pytest.raises(TypeError, match="handlers="):
            served.do(lambda: served.server.listen(0, "127.0.0.1", handlers=handlers))


def test_a_rule_that_cannot_be_used_leaves_no_port_open():
    bad = [("(", Hello)]
    server = WseServer(host="127.0.0.1", identify=lambda auth: "a", handlers=bad)
    with pytest.raises(re.error):
        server.start()
    assert server.port is None
    with serve("async") as served:
        with pytest.raises(re.error):
            served.do(lambda: AsyncWseServer().listen(0, "127.0.0.1", path="("))
