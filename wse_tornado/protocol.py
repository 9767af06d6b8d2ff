"""Packing and unpacking of one WebSocket message, without I/O (docs/wire.md section 2)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import ErrorCode, NotSerializable, WseError, printable, text_of
from .values import Default, common_types, find_refused

__all__ = ["InternalTypes", "JsonProtocol", "Message", "Protocol", "common_types"]

RESERVED_PREFIX = "~wse:"


class Message(NamedTuple):
    """A message as ``receive`` returns it: ``message.type`` and ``message.payload``."""

    type: Any
    payload: Any


@dataclass(frozen=True)
class InternalTypes:
    """The types of the library's own messages; a custom protocol may use other hashable values."""

    hi: Hashable = "~wse:hi"
    challenge: Hashable = "~wse:challenge"
    welcome: Hashable = "~wse:welcome"
    call: Hashable = "~wse:call"
    response: Hashable = "~wse:response"
    response_error: Hashable = "~wse:response-err"

    def roles(self) -> Mapping[Hashable, str]:
        """The field's name by type: ``{"~wse:hi": "hi", ...}``.

        Raises:
            ValueError: Two of the types are equal.
        """
        roles = {
            self.hi: "hi",
            self.challenge: "challenge",
            self.welcome: "welcome",
            self.call: "call",
            self.response: "response",
            self.response_error: "response_error",
        }
        if len(roles) != 6:
            raise ValueError(f"the six internal types must differ from one another: {self}")
        return MappingProxyType(roles)


class Protocol(ABC):
    """The format of messages. Subclass it to use another format on both ends.

    ``pack`` and ``unpack`` may be called from any thread and must not keep state between calls.

    Attributes:
        name: The WebSocket subprotocol offered and selected (RFC 6455 section 1.9).
        internal_types: The types of the library's own messages: an `InternalTypes`, or a mapping
            with its keys (missing ones keep their default).
        carries_extra: Whether messages can have a fourth element (docs/wire.md 8). A subclass
            that overrides ``pack`` or ``unpack`` cannot, unless it says so itself and has
            ``pack_extra`` and ``unpack_extra``.
    """

    name: str
    internal_types: InternalTypes | Mapping[str, Hashable] = InternalTypes()
    carries_extra: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "carries_extra" not in own and ("pack" in own or "unpack" in own):
            cls.carries_extra = False

    @abstractmethod
    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str | bytes:
        """Encode one message: ``str`` is sent as a text frame, ``bytes`` as a binary one.

        Raises:
            Exception: Any; the caller of ``send`` gets it as `NotSerializable`.
        """

    @abstractmethod
    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        """Decode one message: ``(type, payload, stamp)``.

        Raises:
            Exception: Any; the message counts as one that does not decode.
        """

    def pack_extra(self, type: Any, payload: Any, stamp: Any, extra: dict[str, Any]) -> str | bytes:
        """Encode one message with a fourth element. Called only where ``carries_extra`` is true.

        Raises:
            Exception: Any, as with ``pack``.
        """
        raise NotImplementedError

    def unpack_extra(self, data: str | bytes) -> tuple[Any, Any, Any, dict[str, Any] | None]:
        """Decode one message: ``(type, payload, stamp, extra)``; ``extra`` is None where there is
        no fourth element, or one that is not an object. Called only where ``carries_extra`` is
        true.

        Raises:
            Exception: Any, as with ``unpack``.
        """
        raise NotImplementedError


def internal_types_of(protocol: Protocol) -> InternalTypes:
    """The protocol's internal types, however it declares them."""
    declared = protocol.internal_types
    return declared if isinstance(declared, InternalTypes) else InternalTypes(**declared)


def check_protocol(protocol: Protocol | None) -> Protocol:
    """The protocol to use: the given one, checked, or the default one.

    Raises:
        TypeError: It is not a protocol, or has no usable name.
        ValueError: Two of its internal types are equal.
    """
    if protocol is None:
        return JsonProtocol()
    if not isinstance(protocol, Protocol):
        raise TypeError(f"protocol= takes an instance of a Protocol subclass, not {protocol!r}")
    name = getattr(protocol, "name", None)
    if not isinstance(name, str) or not name:
        raise TypeError(f"{type(protocol).__name__}.name must be a non-empty string, not {name!r}")
    internal_types_of(protocol).roles()
    return protocol


def encode(
    protocol: Protocol,
    type: Any,
    payload: Any,
    stamp: Any = None,
    extra: dict[str, Any] | None = None,
) -> tuple[bytes, bool]:
    """Pack one message into the payload of its frame, and whether that frame is binary.

    Raises:
        NotSerializable: The protocol cannot encode it.
    """
    try:
        if extra is None:
            packed = protocol.pack(type, payload, stamp)
        else:
            packed = protocol.pack_extra(type, payload, stamp, extra)
        if packed.__class__ is str:
            return packed.encode("utf-8"), False
        if isinstance(packed, str):
            return packed.encode("utf-8"), False
        if isinstance(packed, (bytes, bytearray, memoryview)):
            return bytes(packed), True
        raise TypeError(f"pack() returned {packed.__class__.__name__}, neither str nor bytes")
    except WseError:
        raise
    except Exception as exc:
        raise NotSerializable(
            ErrorCode.NOT_SERIALIZABLE,
            {"type": type},
            f"the payload of {type!r} cannot be packed by {protocol.name}: {text_of(exc)}",
        ) from exc


def refused(
    what: str,
    type: Any,
    payload: Any,
    exc: Exception,
    write: Default,
    default: Default | None,
    format: str,
) -> NotSerializable:
    """The error for a payload that ``write`` cannot write: where, what, and how to write it."""
    found = find_refused(payload, exc, write, default, format)
    return NotSerializable(
        ErrorCode.NOT_SERIALIZABLE,
        {"type": type, "at": found.at},
        f"the payload of {type!r} cannot be {what}: {found.why}",
    )


def check_default(default: Default | None) -> Default | None:
    """What a protocol is to write values of other types with.

    Raises:
        TypeError: It is not a function.
    """
    if default is not None and not callable(default):
        raise TypeError(f"default= takes a function, such as common_types, not {default!r}")
    return default


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def json_encoder(default: Default | None = None) -> Callable[[Any, int], Iterable[str]]:
    """A writer of compact JSON, in pieces: the ``json`` module's encoder.

    ``JSONEncoder.encode`` builds a new C encoder at each call, which costs more than encoding a
    short message. The C encoder is kept where that is possible and its output is the same.
    """
    documented = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default
    )
    sample = ("t\u20ac", {"a": [1, 2.5, None, True], "b": "\n"}, None)
    try:
        module: Any = json.encoder
        kept: Callable[[Any, int], Iterable[str]] = module.c_make_encoder(
            None, documented.default, module.encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(kept(sample, 0)) == documented.encode(sample):
            return kept
    except Exception:  # another Python, another encoder
        return lambda value, _level: documented.encode(value)
    return lambda value, _level: documented.encode(value)


def json_decoder() -> Callable[[str], Any]:
    """A reader of JSON: the ``json`` module's decoder, which refuses NaN and the infinities."""
    return json.JSONDecoder(parse_constant=_refuse_constant).decode


def fast_json_decoder() -> Callable[[str], Any] | None:
    """msgspec's decoder, if it is installed; it is faster on short texts.

    What it returns is what `json_decoder` returns (the hook reads numbers beyond 64 bits). What it
    refuses is decoded again by `json_decoder`, which decides.
    """
    try:
        import msgspec
    except ImportError:
        return None
    decode: Callable[[str], Any] = msgspec.json.Decoder(float_hook=_number).decode
    return decode


SHORT_TEXT = 4096  # characters; beyond, the two are equally fast


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


class JsonProtocol(Protocol):
    """The default protocol: compact JSON arrays ``[type, payload, stamp]`` in text frames.

    Values are mapped as Python's ``json`` module does. ``NaN`` and the infinities are neither
    written nor read. A lone surrogate in a string is written as its ``\\uXXXX`` escape, as
    ``JSON.stringify`` does.

    Args:
        default: Called for values that JSON does not have; returns one that it has. Take
            `wse_tornado.protocol.common_types` for dates, dataclasses, numpy arrays and others, or
            a function that ends in ``return common_types(value)``.

    Raises:
        TypeError: ``default`` is not a function.
    """

    name = "wse-default-json"
    carries_extra = True

    def __init__(self, default: Default | None = None) -> None:
        self._default = check_default(default)
        self._encode = json_encoder(default)
        self._decode = json_decoder()
        self._decode_fast = fast_json_decoder()

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
        """Write ``[type,payload,stamp]``.

        Raises:
            NotSerializable: JSON cannot represent the payload (the error says which part of it),
                or the type is not a string.
        """
        if not isinstance(type, str):
            raise NotSerializable(
                ErrorCode.NOT_SERIALIZABLE,
                {"type": type},
                f"the type of a message is a string in {self.name}, not {printable(repr(type))}",
            )
        try:
            text = "".join(self._encode((type, payload, stamp), 0))
        except Exception as exc:  # whatever `default` raises, too
            raise refused(
                "written as JSON", type, payload, exc, self._write, self._default, "JSON"
            ) from exc
        if text.isascii():
            return text
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            # Only lone surrogates fail, and they can only occur inside JSON strings, where the
            # escape that backslashreplace writes is the JSON escape.
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text

    def _write(self, value: Any) -> str:
        return "".join(self._encode(value, 0))

    def pack_extra(self, type: Any, payload: Any, stamp: Any, extra: dict[str, Any]) -> str:
        """Write ``[type,payload,stamp,extra]``.

        Raises:
            NotSerializable: As with ``pack``.
            ValueError: ``extra`` cannot be written.
        """
        return f"{self.pack(type, payload, stamp)[:-1]},{self._write(extra)}]"

    def decode(self, text: str) -> Any:
        """Read a JSON text.

        Raises:
            ValueError: It is not JSON.
            RecursionError: It is nested too deeply.
        """
        fast = self._decode_fast
        if fast is not None and len(text) <= SHORT_TEXT:
            try:
                return fast(text)
            except ValueError:  # msgspec's errors are ValueErrors, too
                pass
        return self._decode(text)

    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        """Read an array of one to three elements (more are ignored), text or UTF-8 bytes.

        Raises:
            ValueError: It is not such an array, or not JSON.
            RecursionError: It is nested too deeply.
        """
        message = self.decode(data if isinstance(data, str) else str(data, "utf-8"))
        if type(message) is not list or not message:
            raise ValueError("a message is a JSON array of one to three elements")
        size = len(message)
        message_type = message[0]
        if type(message_type) is not str:
            if message_type:
                raise ValueError("the type of a message is a string")
            message_type = None
        return message_type, message[1] if size > 1 else None, message[2] if size > 2 else None

    def unpack_extra(self, data: str | bytes) -> tuple[Any, Any, Any, dict[str, Any] | None]:
        """As ``unpack``, with the fourth element if it is an object.

        Raises:
            ValueError: As with ``unpack``.
            RecursionError: As with ``unpack``.
        """
        message = self.decode(data if isinstance(data, str) else str(data, "utf-8"))
        return split_extra(message)


def split_extra(message: Any) -> tuple[Any, Any, Any, dict[str, Any] | None]:
    """The four elements of a decoded array.

    Raises:
        ValueError: It is not an array that a message can be.
    """
    if type(message) is not list or not message:
        raise ValueError("a message is an array of one to four elements")
    message_type = message[0]
    if type(message_type) is not str:
        if message_type:
            raise ValueError("the type of a message is a string")
        message_type = None
    size = len(message)
    extra = message[3] if size > 3 else None
    return (
        message_type,
        message[1] if size > 1 else None,
        message[2] if size > 2 else None,
        extra if type(extra) is dict else None,
    )
