"""A Flask application with a WebSocket server beside it, in one process.

    python examples/flask_app.py           then open http://localhost:5000
    python examples/flask_app.py --demo    uses itself once, and ends

Views use the server from their own threads. A view gives the signed-in user a token, and that is
what the page presents to the socket, whose port is not Flask's. It needs Flask.
"""

import argparse
import json
import logging
import threading
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

from flask import Flask, redirect, request, session
from itsdangerous import BadData, URLSafeTimedSerializer
from werkzeug.serving import make_server

from wse_tornado import ConnectionNotReady, NotAuthorized, RpcError, WseClient, WseServer

PAGE = """<!doctype html>
<title>Flask and wse_tornado</title>
<form method="post" action="/sign-in"><input name="name" placeholder="your name"></form>
<p>Then, from a terminal: <code>curl -d text=hello http://localhost:5000/notify/NAME</code></p>
<ul id="notes"></ul>
<script type="module">
  const { url } = await (await fetch("/socket")).json()
  if (url) {
    const { WseClient } = await import(url.replace("ws", "http") + "/wse.js")
    const client = new WseClient({ url, reconnect: true })
    client.channel.on("note", (text) => {
      const item = document.createElement("li")
      item.textContent = text
      document.getElementById("notes").append(item)
    })
    client.register("battery", () => 80)
    await client.connect(async () => (await (await fetch("/socket")).json()).token)
  }
</script>
"""

app = Flask(__name__)
app.secret_key = "read it from your settings"
tokens = URLSafeTimedSerializer(app.secret_key, salt="wse")


def identify(auth):
    try:
        user = tokens.loads(auth.identity, max_age=60)
    except (BadData, TypeError):
        auth.refuse()
    else:
        auth.accept(user, {"message": f"Welcome, {user}!"})


def make_socket_server(pages_port):
    origins = [f"http://localhost:{pages_port}", f"http://127.0.0.1:{pages_port}"]
    return WseServer(identify=identify, conn_per_user=5, allowed_origins=origins)


@app.get("/")
def index():
    return PAGE


@app.post("/sign-in")
def sign_in():
    session["user"] = request.form["name"]  # check the password here
    return redirect("/")


@app.get("/socket")
def socket():
    """Where the socket is, and a token for it; the page asks again at every reconnection."""
    if "user" not in session:
        return {}
    return {"url": app.config["SOCKETS"].url, "token": tokens.dumps(session["user"])}


@app.get("/online")
def online():
    return {user: len(one.conns) for user, one in app.config["SOCKETS"].clients.items()}


@app.post("/notify/<user>")
def notify(user):
    # check here who may do this
    return {"devices": app.config["SOCKETS"].send(user, "note", request.form["text"])}


@app.get("/battery/<user>")
def battery(user):
    """A view may wait for a device: it has a thread of its own."""
    one = app.config["SOCKETS"].clients.get(user)
    levels = {}
    for conn in one.conns.values() if one else ():
        try:
            levels[conn.meta.get("device", "browser")] = conn.call("battery", timeout=5)
        except (RpcError, ConnectionNotReady) as error:
            levels[conn.conn_id] = str(error)
    return levels


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()

    http = make_server("localhost", 0 if options.demo else options.port, app, threaded=True)
    with make_socket_server(http.server_port) as sockets:
        app.config["SOCKETS"] = sockets
        print(f"server: pages on http://localhost:{http.server_port}, sockets on {sockets.url}")
        if options.demo:
            logging.getLogger("werkzeug").setLevel(logging.WARNING)
            pages = threading.Thread(target=http.serve_forever)
            pages.start()
            try:
                use_it(f"http://localhost:{http.server_port}")
            finally:
                http.shutdown()
                pages.join()
        else:
            try:
                http.serve_forever()
            except KeyboardInterrupt:
                pass
    http.server_close()


def use_it(url):
    browser = build_opener(HTTPCookieProcessor(CookieJar()))

    def fetch(path, **form):
        data = urlencode(form).encode() if form else None
        with browser.open(Request(url + path, data)) as answer:
            return answer.read().decode()

    print("page:", fetch("/").splitlines()[1])
    print("unauthenticated:", fetch("/socket").strip())
    fetch("/sign-in", name="ann")
    where = json.loads(fetch("/socket"))["url"]

    with WseClient(where) as phone:
        try:
            phone.connect("a token of her own making")
        except NotAuthorized as error:
            print("forger:", error)

        phone.register("battery", lambda payload: 80)
        welcome = phone.connect(lambda: json.loads(fetch("/socket"))["token"], {"device": "phone"})
        print("phone:", welcome["message"])
        print("page:", json.loads(fetch("/online")))
        print("page:", json.loads(fetch("/notify/ann", text="Dinner is ready")))
        print("phone:", phone.wait_for("note", timeout=5))
        print("page:", json.loads(fetch("/battery/ann")))
    print("done")


if __name__ == "__main__":
    main()
