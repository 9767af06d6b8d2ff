"""A chat for people with several devices each, in one Tornado application.

    python examples/chat/app.py [--port 8888] [--host localhost]
    python examples/chat/bot.py                 a script without async that joins in

Open http://localhost:8888 in two windows, stop the server and start it again: everybody comes back.

Accounts, sessions and messages are kept in memory, so a restart forgets them; whoever is in the
chat then brings the account along. A passphrase reaches the server as it is, as with any sign-in
form, and is kept as a salted scrypt hash. So serve it with TLS to other machines.
"""

import argparse
import asyncio
import hashlib
import hmac
import re
import secrets
import signal
import time
from collections import OrderedDict, deque
from pathlib import Path

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from wse_tornado import AsyncWseServer, Limits, WseError

STATIC = Path(__file__).parent / "static"
NAME = re.compile(r"\w[\w .-]{0,22}\w|\w")
DICE = re.compile(r"(\d{1,2})d(\d{1,3})")
MAX_ACCOUNTS = 1000
MAX_TOKENS = 4000
MAX_TEXT = 2000
MIN_PASSPHRASE = 8


class Accounts:
    """Names, passphrases and the sessions of pages that were reloaded."""

    def __init__(self):
        self._people = {}  # name in lower case: (name, salt, hash)
        self._tokens = OrderedDict()  # token: name

    def find(self, name):
        """The name as its owner writes it, or None."""
        person = self._people.get(name.casefold()) if isinstance(name, str) else None
        return person[0] if person else None

    async def admit(self, identity):
        """The name of whoever may come in with this identity, or None."""
        if not isinstance(identity, dict):
            return None
        token = identity.get("token")
        if isinstance(token, str):
            return self._tokens.get(token)
        name, passphrase = identity.get("name"), identity.get("passphrase")
        if not isinstance(name, str) or not isinstance(passphrase, str) or len(passphrase) > 200:
            return None
        if self.find(name) is None and identity.get("create"):
            return await self._create(name.strip(), passphrase)
        key = name.strip().casefold()
        name, salt, expected = self._people.get(key, (None, b"\0" * 16, b""))
        given = await hashed(passphrase, salt)  # for unknown names, too: it takes as long
        return name if hmac.compare_digest(given, expected) else None

    async def _create(self, name, passphrase):
        if not NAME.fullmatch(name) or len(passphrase) < MIN_PASSPHRASE:
            return None
        salt = secrets.token_bytes(16)
        person = (name, salt, await hashed(passphrase, salt))
        if len(self._people) >= MAX_ACCOUNTS:
            return None
        mine = self._people.setdefault(name.casefold(), person) is person  # or another was faster
        return name if mine else None

    def new_token(self, name):
        """What a page may come back with instead of the passphrase."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = name
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return token

    def forget_token(self, token):
        self._tokens.pop(token, None)


async def hashed(passphrase, salt):
    """Slow on purpose, and therefore not on the loop."""
    return await asyncio.to_thread(
        hashlib.scrypt, passphrase.encode(), salt=salt, n=2**14, r=8, p=1
    )


accounts = Accounts()
messages = deque(maxlen=500)


async def identify(auth):
    name = await accounts.admit(auth.identity)
    if name:
        auth.accept(name, {"name": name, "token": accounts.new_token(name)})
    else:
        auth.refuse()


wse = AsyncWseServer(
    identify=identify,
    conn_per_user=5,
    linger=2,  # a page that is reloaded has not left
    limits=Limits(message_rate=10, message_burst=40, max_message_size=20_000),
)


def device_of(conn):
    return str(conn.meta.get("device") or "a device")[:40]


def tell_presence():
    people = [
        {"name": name, "devices": [device_of(conn) for conn in client.conns.values()]}
        for name, client in wse.clients.items()
        if client.conns
    ]
    wse.broadcast("presence", sorted(people, key=lambda person: person["name"].casefold()))


@wse.when.connected
def connected(conn):
    tell_presence()


@wse.when.disconnected
def disconnected(conn, code, reason):
    if code != 1012:  # else it is this server that goes, and everybody will be back
        tell_presence()


@wse.when.joined
def joined(client, meta):
    wse.broadcast("joined", client.cid, exclude=client.cid)


@wse.when.left
def left(client, code, reason):
    wse.broadcast("left", client.cid)


def recipient(payload):
    """Whom it is for: a name, or None for everyone."""
    to = payload.get("to")
    if to is None:
        return None
    name = accounts.find(to)
    if name is None:
        raise WseError("chat.unknown-person", {"to": to}, f"there is nobody called {to}")
    return name


def publish(conn, to, text, kind="text"):
    message = {
        "id": secrets.token_hex(8),
        "at": time.time(),
        "from": conn.cid,
        "to": to,
        "text": text,
        "kind": kind,
    }
    messages.append(message)
    if to is None:
        wse.broadcast("message", message)
    else:
        for name in {to, conn.cid}:  # the sender's other devices show it as well
            wse.send(name, "message", message)
    return message["id"]


@wse.register("say")
def say(conn, payload):
    text = payload["text"].strip()
    if not 0 < len(text) <= MAX_TEXT:
        raise WseError("chat.bad-text", {"longest": MAX_TEXT}, "nothing to say, or too much of it")
    return publish(conn, recipient(payload), text)


@wse.register("roll")
def roll(conn, payload):
    dice = DICE.fullmatch(payload.get("dice", "2d6"))
    count, sides = map(int, dice.groups()) if dice else (0, 0)
    if not (count and sides > 1):
        raise WseError("chat.bad-dice", {}, "dice are written like 2d6")
    rolled = [secrets.randbelow(sides) + 1 for _ in range(count)]
    total = f" = {sum(rolled)}" if count > 1 else ""
    text = f"rolled {count}d{sides}: {' + '.join(map(str, rolled))}{total}"
    publish(conn, recipient(payload), text, "roll")
    return {"rolled": rolled, "total": sum(rolled)}


@wse.register("history")
def history(conn, payload):
    """What this person may see, oldest first."""
    me = conn.cid
    return [m for m in messages if m["to"] is None or me in (m["to"], m["from"])]


@wse.register("sign-out")
def sign_out(conn, token):
    accounts.forget_token(token)


@wse.channel.on("typing")
def typing(conn, payload):
    to = accounts.find(payload.get("to")) if payload else None
    if to is None:
        wse.broadcast("typing", {"from": conn.cid, "to": None}, exclude=conn.cid)
    else:
        wse.send(to, "typing", {"from": conn.cid, "to": to})


class PageHandler(tornado.web.StaticFileHandler):
    """The page and its files. No other site's script runs in it."""

    def set_default_headers(self):
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")


def make_app():
    page = {"path": STATIC, "default_filename": "index.html"}
    return tornado.web.Application([*wse.routes(r"/ws"), (r"/(.*)", PageHandler, page)])


async def serve(port, host):
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        except NotImplementedError:  # Windows, where Ctrl-C raises KeyboardInterrupt
            pass
    sockets = bind_sockets(port, host)
    http = HTTPServer(make_app())
    http.add_sockets(sockets)
    print(f"chat: http://{host}:{sockets[0].getsockname()[1]}", flush=True)
    try:
        await over.wait()  # until Ctrl-C or SIGTERM
    finally:
        http.stop()
        await wse.stop()  # tells everybody to come back
        await http.close_all_connections()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat page.")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--host", default="localhost")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.port, options.host))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        raise SystemExit(f"cannot listen on port {options.port}: {error}") from None
