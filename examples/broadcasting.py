"""One message for many: for everyone, for one user, for everyone but the sender.

Blocking code only. Run it: ``python examples/broadcasting.py``. It prints what happens and ends
by itself.
"""

from wse_tornado import WseClient, WseServer

server = WseServer(port=0, identify=lambda auth: auth.identity, conn_per_user=2)


@server.channel.on("chat")
def chat(conn, text):
    reached = server.broadcast("chat", {"from": conn.cid, "text": text}, exclude=conn.cid)
    conn.send("delivered", {"devices": reached})


@server.channel.on("whisper")
def whisper(conn, payload):
    if not server.send(payload["to"], "whisper", {"from": conn.cid, "text": payload["text"]}):
        conn.send("undelivered", f"{payload['to']} is not here")


def main():
    with server:
        phone, laptop = WseClient(server.url), WseClient(server.url)
        bob, carol = WseClient(server.url), WseClient(server.url)
        with phone, laptop, bob, carol:
            phone.connect("alice")
            laptop.connect("alice")
            bob.connect("bob")
            carol.connect("carol")
            everyone = {"alice's phone": phone, "alice's laptop": laptop, "bob": bob}
            everyone["carol"] = carol

            print("-- to everyone")
            count = server.broadcast("announcement", {"message": "Maintenance in 5 minutes"})
            print(f"server: handed to {count} devices")
            for name, client in everyone.items():
                print(f"{name}:", client.wait_for("announcement", timeout=5)["message"])

            print("-- to one user, on every device")
            print("server: devices:", server.send("alice", "note", "Your report is ready"))
            print("alice's phone:", phone.wait_for("note", timeout=5))
            print("alice's laptop:", laptop.wait_for("note", timeout=5))
            print("server: devices of somebody who is away:", server.send("dave", "note", "?"))

            print("-- to everyone but the sender")
            bob.send("chat", "Good morning!")
            print("bob:", bob.wait_for("delivered", timeout=5))
            for name in ("alice's phone", "alice's laptop", "carol"):
                print(f"{name}:", everyone[name].wait_for("chat", timeout=5))

            print("-- from one user to another")
            carol.send("whisper", {"to": "bob", "text": "Lunch?"})
            print("bob:", bob.wait_for("whisper", timeout=5))
            carol.send("whisper", {"to": "dave", "text": "Lunch?"})
            print("carol:", carol.wait_for("undelivered", timeout=5))
    print("done")


if __name__ == "__main__":
    main()
