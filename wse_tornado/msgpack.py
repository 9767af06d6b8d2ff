"""Messages in MessagePack: binary frames, smaller than JSON, with ``bytes`` and ``datetime``.

The package itself does not import this module, because it needs the ``msgpack`` library. No I/O.
"""

from __future__ import annotations

from typing import Any

from .errors import ErrorCode, NotSerializable, printable
from .protocol import Protocol, check_default, refused, split_extra
from .values import Default

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

    In addition to JSON's values it carries ``bytes``, ``NaN`` and the infinities, and ``datetime``
    with a time zone (the timestamp extension; it arrives in UTC). Tuples arrive as lists. Keys of
    dictionaries are ``str`` or ``bytes``, and integers have at most 64 bits.

    Args:
        default: Called for values that MessagePack does not have; returns one that it has. With
            `wse_tornado.protocol.common_types`, dates and ``datetime`` without a time zone are
            written as ISO 8601 text, among others.

    Raises:
        TypeError: ``default`` is not a function.
    """

    name = "wse-msgpack"
    carries_extra = True

    def __init__(self, default: Default | None = None) -> None:
        self._default = check_default(default)

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> bytes:
        """Write ``[type, payload, stamp]`` as one binary message.

        Raises:
            NotSerializable: MessagePack cannot represent the payload (the error says which part of
                it), or the type is not a string.
        """
        if not isinstance(type, str):
            raise NotSerializable(
                ErrorCode.NOT_SERIALIZABLE,
                {"type": type},
                f"the type of a message is a string in {self.name}, not {printable(repr(type))}",
            )
        try:
            return self._write((type, payload, stamp))
        except Exception as exc:
            raise refused(
                f"packed by {self.name}",
                type,
                payload,
                exc,
                self._write,
                self._default,
                "MessagePack",
            ) from exc

    def _write(self, value: Any) -> bytes:
        packed: bytes = msgpack.packb(value, default=self._default, datetime=True)
        # The writer takes keys of any kind and the reader does not: what would make the other end
        # close the connection has to fail here, in the caller.
        _read(packed)
        return packed

    def pack_extra(self, type: Any, payload: Any, stamp: Any, extra: dict[str, Any]) -> bytes:
        """Write ``[type, payload, stamp, extra]`` as one binary message.

        Raises:
            NotSerializable: As with ``pack``.
            ValueError: ``extra`` cannot be written.
        """
        # 0x93 and 0x94 begin arrays of three and of four elements.
        return b"\x94" + self.pack(type, payload, stamp)[1:] + self._write(extra)

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

    def unpack_extra(self, data: str | bytes) -> tuple[Any, Any, Any, dict[str, Any] | None]:
        """As ``unpack``, with the fourth element if it is an object.

        Raises:
            ValueError: As with ``unpack``.
        """
        if isinstance(data, str):
            raise ValueError("a text frame, where MessagePack needs binary ones")
        return split_extra(_read(data))


def _read(data: bytes) -> Any:
    # strict_map_key: numbers can be chosen to collide in a dictionary, strings cannot, so number
    # keys would let anybody keep the loop busy with one message.
    try:
        return msgpack.unpackb(data, timestamp=3, strict_map_key=True)
    except msgpack.StackError:
        raise ValueError("nested too deeply") from None
    except msgpack.FormatError:
        raise ValueError("not MessagePack") from None
    except OverflowError:
        raise ValueError("a date that datetime cannot hold") from None
