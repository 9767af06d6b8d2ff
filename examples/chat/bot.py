"""A script without async that joins the chat: it answers who writes to it.

python examples/chat/bot.py [--url ws://localhost:8888/ws] [--name Robot]
"""

import argparse
import secrets
import time

from wse_tornado import WseClient, WseError

parser = argparse.ArgumentParser(description="A chat robot.")
parser.add_argument("--url", default="ws://localhost:8888/ws")
parser.add_argument("--name", default="Robot")
options = parser.parse_args()

client = WseClient(options.url, reconnect=True)
identity = {"name": options.name, "passphrase": secrets.token_hex(16), "create": True}
present = []


@client.channel.on("presence")
def presence(people):
    present[:] = [person["name"] for person in people]


@client.channel.on("message")
def message(said):
    mine = said["to"] == options.name or f"@{options.name}".casefold() in said["text"].casefold()
    if said["from"] == options.name or not mine:
        return
    try:
        answer(said["text"].casefold(), said["to"] and said["from"])
    except WseError as error:  # it left meanwhile, or the connection is lost
        print("robot:", error, flush=True)


def answer(text, to):
    if "roll" in text:
        client.call("roll", {"to": to})
    elif "time" in text:
        client.call("say", {"to": to, "text": time.strftime("It is %H:%M:%S.")})
    elif "who" in text:
        client.call("say", {"to": to, "text": "Here are " + ", ".join(present) + "."})
    else:
        client.call("say", {"to": to, "text": "I know about: time, who, roll."})


@client.when.updated
def updated(status):
    print("robot:", status, flush=True)


try:
    with client:
        client.connect(identity, {"device": "a Python script"})
        client.call("say", {"text": f"Hello! Write @{options.name} time, who or roll."})
        client.wait()
except KeyboardInterrupt:
    pass
except WseError as error:  # refused, or no server within the client's timeout
    raise SystemExit(f"robot: {error}") from None
