"""A WebSocket server beside an ordinary page, in one Tornado application.

    python examples/tornado_app.py --port 8888      then open http://localhost:8888
    python examples/tornado_app.py --demo           serves itself once, and ends

The page's few lines of JavaScript speak the wire without any library.
"""

import argparse
import asyncio

import tornado.web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import AsyncWseClient, AsyncWseServer, NotAuthorized

PAGE = """<!doctype html>
<title>wse_tornado</title>
<h1>5 + 3 = <output id="sum">...</output></h1>
<pre id="log"></pre>
<script>
  const url = location.href.replace(/^http/, "ws").replace(/\\/$/, "") + "/ws"
  const socket = new WebSocket(url, "wse-default-json")
  const send = (...message) => socket.send(JSON.stringify(message))
  socket.onopen = () => send("~wse:hi", { identity: "your-secret-key" }, null)
  socket.onmessage = (event) => {
    const [type, payload, stamp] = JSON.parse(event.data)
    document.getElementById("log").textContent += event.data + "\\n"
    if (type === "~wse:welcome") send("add", { a: 5, b: 3 }, "call-1")
    if (stamp === "call-1") document.getElementById("sum").textContent = payload
  }
</script>
"""


async def identify(auth):
    await asyncio.sleep(0)  # a query to the database, say
    if auth.identity == "your-secret-key":
        auth.accept("user-123", {"message": "Welcome!"})
    else:
        auth.refuse()


wse = AsyncWseServer(identify=identify, conn_per_user=10)


@wse.channel.on("hello")
def hello(conn, data):
    conn.send("welcome", {"message": "Hello back!"})


@wse.register("add")
async def add(conn, payload):  # plain or async, both work
    return payload["a"] + payload["b"]


class MainHandler(tornado.web.RequestHandler):
    def get(self):
        self.write(PAGE)


class UsersHandler(tornado.web.RequestHandler):
    """Ordinary handlers use the server as they like: everything is on one loop."""

    def get(self):
        self.write({"users": list(wse.clients), "reached": wse.broadcast("looked-up")})


def make_app():
    return tornado.web.Application(
        [
            (r"/", MainHandler),
            (r"/users", UsersHandler),
            *wse.routes(r"/ws"),
        ]
    )


async def serve(port, demo):
    sockets = bind_sockets(port, "localhost")
    port = sockets[0].getsockname()[1]
    http = HTTPServer(make_app())
    http.add_sockets(sockets)
    print(f"server: http://localhost:{port}")
    try:
        if demo:
            await use_it(f"localhost:{port}")
        else:
            await asyncio.Event().wait()  # until Ctrl-C
    finally:
        http.stop()
        await wse.stop()
        await http.close_all_connections()


async def use_it(host):
    page = await AsyncHTTPClient().fetch(f"http://{host}/")
    print("page:", page.body.decode().splitlines()[1])

    client = AsyncWseClient(f"ws://{host}/ws")
    try:
        await client.connect("a wrong key")
    except NotAuthorized as error:
        print("client:", error)

    print("client:", await client.connect("your-secret-key", {"device": "laptop"}))
    client.send("hello", {"message": "Hello server!"})
    print("client:", await client.wait_for("welcome", timeout=5))
    print("client: 5 + 3 =", await client.call("add", {"a": 5, "b": 3}))

    users = await AsyncHTTPClient().fetch(f"http://{host}/users")
    print("page:", users.body.decode())
    print("client:", await client.receive(timeout=5))
    await client.close()
    print("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    try:
        asyncio.run(serve(0 if options.demo else options.port, options.demo))
    except KeyboardInterrupt:
        pass
