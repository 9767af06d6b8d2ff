"""Custom protocols: one that writes text, one that writes bytes. Blocking code only.

A protocol turns ``(type, payload, stamp)`` into one WebSocket message and back. Both ends use the
same one. For MessagePack there is a ready one: `wse_tornado.msgpack.MsgpackProtocol`.
Run it: ``python examples/custom_protocol.py``. It prints what happens and ends by itself.
"""

import json
import zlib

from wse_tornado import (
    InternalTypes,
    NotSerializable,
    Protocol,
    ProtocolError,
    WseClient,
    WseServer,
)


class ObjectProtocol(Protocol):
    """Text frames with JSON objects: ``{"type": "add", "payload": {"a": 5}, "stamp": "x1"}``."""

    name = "example-json-objects"

    def pack(self, type, payload=None, stamp=None):
        return json.dumps({"type": type, "payload": payload, "stamp": stamp})

    def unpack(self, data):
        message = json.loads(data)
        return message.get("type"), message.get("payload"), message.get("stamp")


class CompressedProtocol(Protocol):
    """Binary frames with compressed JSON arrays. The library's own types are small numbers."""

    name = "example-zlib"
    internal_types = InternalTypes(
        hi=1, challenge=2, welcome=3, call=4, response=5, response_error=6
    )
    max_size = 10 * 1024 * 1024

    def pack(self, type, payload=None, stamp=None):
        return zlib.compress(json.dumps([type, payload, stamp]).encode())

    def unpack(self, data):
        # Anybody may send this before being let in: whatever raises here is a protocol error
        # and closes the connection, but a small message must not be able to fill the memory.
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(data, self.max_size)
        if not decompressor.eof:
            raise ValueError("too large, or cut short")
        type, payload, stamp = json.loads(text)
        return type, payload, stamp


def show(protocol):
    print(f"-- {protocol.name}")
    packed = protocol.pack("add", {"a": 5, "b": 3}, "x1")
    print(f"one message: a {type(packed).__name__} of {len(packed)}")

    server = WseServer(port=0, identify=lambda auth: auth.identity, protocol=protocol)
    server.register("add", lambda conn, payload: payload["a"] + payload["b"])
    with server, WseClient(server.url, protocol=protocol) as client:
        client.connect("alice")
        print("5 + 3 =", client.call("add", {"a": 5, "b": 3}))
        server.broadcast("news", "x" * 10_000)
        print("news of", len(client.wait_for("news", timeout=5)), "characters")
        try:
            client.send("a set", {1, 2, 3})
        except NotSerializable as error:
            print("not sent:", error)

        with WseClient(server.url) as other:
            try:
                other.connect("bob")
            except ProtocolError as error:
                print("a client of the default protocol:", error)


if __name__ == "__main__":
    show(ObjectProtocol())
    show(CompressedProtocol())
    print("done")
