"""Into an application that exists: its pages, its sign-in, its HTTPServer.

Two WebSocket servers are added to one Tornado application. The first knows its users by the signed
cookie that the sign-in page has set; the second takes a key, and its path says which room is meant.
Run it: ``python examples/integration.py``. It prints what happens and ends by itself.
"""

import asyncio
from urllib.parse import urlencode

import tornado.web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import AsyncWseClient, AsyncWseServer, NotAuthorized

# -- the application as it was


def signed_in_user(handler):
    user = handler.get_signed_cookie("user")
    return user.decode() if user else None


class BaseHandler(tornado.web.RequestHandler):
    def get_current_user(self):
        return signed_in_user(self)


class SignInHandler(BaseHandler):
    def post(self):
        self.set_signed_cookie("user", self.get_argument("name"), httponly=True, samesite="Lax")
        self.write("signed in")


class MainHandler(BaseHandler):
    def get(self):
        self.write(f"Hello, {self.current_user or 'guest'}!")


PAGES = [(r"/", MainHandler), (r"/sign-in", SignInHandler)]


# -- what is new: two servers


def identify_by_cookie(auth):
    # `auth.handler` is Tornado's handler of the handshake, with all that the browser sent.
    # Tornado's origin check keeps the pages of other sites out, which would send the cookie too.
    user = signed_in_user(auth.handler)
    if user:
        auth.accept(user, {"message": f"Welcome, {user}!"})
    else:
        auth.refuse()


def identify_by_key(auth):
    room = auth.handler.path_args[0]  # the group in the route
    if auth.identity == "robot-key":
        auth.accept(f"robot in {room}", {"room": room})
    else:
        auth.refuse()


users = AsyncWseServer(identify=identify_by_cookie, conn_per_user=5)
robots = AsyncWseServer(identify=identify_by_key)


@robots.channel.on("temperature")
def temperature(conn, degrees):
    reached = users.broadcast("temperature", {"of": conn.cid, "degrees": degrees})
    conn.send("shown", {"devices": reached})


def make_app():
    return tornado.web.Application(
        [*PAGES, *users.routes(r"/ws"), *robots.routes(r"/robots/(\w+)")],
        cookie_secret="read it from your settings",
    )


# -- an HTTPServer of your own (for wss:// give it ssl_options), and a look from outside


async def main():
    sockets = bind_sockets(0, "localhost")
    host = f"localhost:{sockets[0].getsockname()[1]}"
    http = HTTPServer(make_app())
    http.add_sockets(sockets)
    try:
        await look_from_outside(host)
    finally:
        http.stop()  # accept nobody
        await users.stop()  # close with 1012: clients come back, to the next process
        await robots.stop()
        await http.close_all_connections()
    print("done")


async def look_from_outside(host):
    web = AsyncHTTPClient()
    page = await web.fetch(f"http://{host}/")
    print("page:", page.body.decode())

    print("-- without the cookie")
    try:
        await AsyncWseClient(f"ws://{host}/ws").connect()
    except NotAuthorized as error:
        print("unauthenticated:", error)

    print("-- with the cookie of the page")
    answer = await web.fetch(
        f"http://{host}/sign-in", method="POST", body=urlencode({"name": "alice"})
    )
    cookie = answer.headers["Set-Cookie"].split(";")[0]
    page = await web.fetch(f"http://{host}/", headers={"Cookie": cookie})
    print("page:", page.body.decode())
    alice = AsyncWseClient(f"ws://{host}/ws", headers={"Cookie": cookie})
    print("alice:", (await alice.connect())["message"])

    print("-- the other server of the same application")
    robot = AsyncWseClient(f"ws://{host}/robots/kitchen")
    print("robot: in the", (await robot.connect("robot-key"))["room"])
    robot.send("temperature", 21.5)
    print("alice:", await alice.wait_for("temperature", timeout=5))
    print("robot:", await robot.wait_for("shown", timeout=5))

    await robot.close()
    await alice.close()


if __name__ == "__main__":
    asyncio.run(main())
