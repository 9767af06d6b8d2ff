"""Messages in MessagePack: binary frames, smaller than JSON, with ``bytes`` and date-times.

Not imported by the package itself, because it needs the ``msgpack`` library. No I/O.
"""

from __future__ import annotations

from typing import Any

from .protocol import Protocol

try:
    import msgpack
except ImportError as exc:
    raise ImportError(
        "wse_tornado.msgpack needs the msgpack library: "
        "python -m pip install 'wse-tornado[msgpack]'"
    ) from exc

__all__ = ["MsgpackProtocol"]


class MsgpackProtocol(Protocol):
    """The arrays of the default protocol, ``[type, payload, stamp]``, in MessagePack.

    Give it to both ends: ``WseServer(protocol=MsgpackProtocol())`` and
    ``WseClient(url, protocol=MsgpackProtocol())``. The types, internal ones too, are the strings
    of the default protocol, so a peer in another language changes nothing but the encoding.

    Beyond JSON it carries ``bytes``, ``NaN`` and the infinities, and ``datetime`` with a time zone
    (the timestamp extension; it arrives in UTC). Tuples arrive as lists. Keys of dictionaries are
    ``str`` or ``bytes``, and integers have at most 64 bits.
    """

    name = "wse-msgpack"

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> bytes:
        """Write ``[type, payload, stamp]`` as one binary message.

        Raises:
            TypeError: MessagePack cannot hold the payload, or the type is not a string.
            ValueError: It is nested too deeply, has keys that are neither ``str`` nor ``bytes``,
                or a string that is not Unicode.
            OverflowError: An integer has more than 64 bits.
        """
        if not isinstance(type, str):
            raise TypeError("the type of a message is a string")
        packed: bytes = msgpack.packb((type, payload, stamp), datetime=True)
        # The writer takes keys of any kind and the reader does not: what the other end would
        # close the connection for has to fail here, in the caller.
        _read(packed)
        return packed

    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        """Read an array of one to three elements (more are ignored) from a binary message.

        Raises:
            ValueError: It is not such an array, not MessagePack, or has keys that are neither
                ``str`` nor ``bytes``.
        """
        if isinstance(data, str):
            raise ValueError("a text frame, where MessagePack needs binary ones")
        message = _read(data)
        if not isinstance(message, list) or not message:
            raise ValueError("a message is an array of one to three elements")
        size = len(message)
        message_type = message[0]
        if not isinstance(message_type, str):
            if message_type:
                raise ValueError("the type of a message is a string")
            message_type = None
        return message_type, message[1] if size > 1 else None, message[2] if size > 2 else None


def _read(data: bytes) -> Any:
    # strict_map_key: many numbers can be made to collide in a dictionary, strings cannot, so
    # number keys would let a stranger keep the loop busy with one message.
    try:
        return msgpack.unpackb(data, timestamp=3, strict_map_key=True)
    except msgpack.StackError:
        raise ValueError("nested too deeply") from None
    except msgpack.FormatError:
        raise ValueError("not MessagePack") from None
    except OverflowError:
        raise ValueError("a date that datetime cannot hold") from None
