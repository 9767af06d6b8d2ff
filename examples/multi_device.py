"""One user with several devices: how they come, share, and go. Blocking code only.

Run it: ``python examples/multi_device.py``. It prints what happens and ends by itself.
"""

import queue

from wse_tornado import Reason, WseClient, WseServer

server = WseServer(port=0, identify=lambda auth: auth.identity, conn_per_user=2)
log = queue.Queue()


@server.when.joined
def joined(client, meta):
    log.put(f"server: {client.cid} joined with a {meta['device']}")


@server.when.connected
def connected(conn):
    log.put(f"server: a device of {conn.cid} is in: {conn.meta['device']}")


@server.when.disconnected
def disconnected(conn, code, reason):
    log.put(f"server: the {conn.meta['device']} of {conn.cid} is gone ({code} {reason})")


@server.when.left
def left(client, code, reason):
    log.put(f"server: {client.cid} left")


@server.channel.on("settings")
def settings(conn, payload):
    conn.send("saved", True)  # to this device only
    for other in conn.client.conns.values():
        if other.conn_id != conn.conn_id:
            other.send("settings", payload)  # to the user's other devices


@server.register("devices")
def devices(conn, payload):
    return [each.meta["device"] for each in conn.client.conns.values()]


def show(lines):
    for _ in range(lines):
        print(log.get(timeout=5))


def main():
    with server:
        phone, laptop, tablet = (WseClient(server.url) for _ in range(3))
        closed = queue.Queue()
        phone.when.closed(lambda code, reason: closed.put(reason))
        laptop.register("battery", lambda payload: 80)

        with phone, laptop, tablet:
            print("-- two devices of one user")
            phone.connect("alice", {"device": "phone"})
            show(2)
            laptop.connect("alice", {"device": "laptop"})
            show(1)
            print("alice's devices:", phone.call("devices"))

            print("-- to both, to one, to the other one")
            print("server: reached", server.send("alice", "sync", {"version": 7}), "devices")
            print("phone:", phone.wait_for("sync", timeout=5))
            print("laptop:", laptop.wait_for("sync", timeout=5))
            phone.send("settings", {"theme": "dark"})
            print("phone: saved", phone.wait_for("saved", timeout=5))
            print("laptop:", laptop.wait_for("settings", timeout=5))

            print("-- the server calls one device")
            for conn in server.clients["alice"].conns.values():
                if conn.meta["device"] == "laptop":
                    print("server: the laptop's battery is at", conn.call("battery"), "%")

            print("-- a third device pushes out the oldest (conn_per_user=2)")
            tablet.connect("alice", {"device": "tablet"})
            show(2)
            reason = closed.get(timeout=5)
            print("phone:", reason, reason == Reason.CLIENTS_CONCURRENCY)
            print("alice's devices:", tablet.call("devices"))

            print("-- the user leaves with the last device")
            laptop.close()
            show(1)
            tablet.close()
            show(2)
            print("server: users left:", list(server.clients))
    print("done")


if __name__ == "__main__":
    main()
