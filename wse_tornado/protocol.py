"""Message <-> wire: what one WebSocket message says, without any socket (WIRE.md section 2)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import ErrorCode, NotSerializable, WseError, text_of

__all__ = ["InternalTypes", "JsonProtocol", "Message", "Protocol"]

RESERVED_PREFIX = "~wse:"


class Message(NamedTuple):
    """A message as ``receive`` hands it out: ``message.type`` and ``message.payload``."""

    type: Any
    payload: Any


@dataclass(frozen=True)
class InternalTypes:
    """The types that the library itself sends; a custom protocol may use other hashable values."""

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
    """How messages are written. Subclass it to speak another format on both ends.

    ``pack`` and ``unpack`` may be called from any thread and must not keep state between calls.

    Attributes:
        name: The WebSocket subprotocol offered and selected (RFC 6455 section 1.9).
        internal_types: The types of the library's own messages: an `InternalTypes`, or a mapping
            with its keys (missing ones keep their default).
    """

    name: str
    internal_types: InternalTypes | Mapping[str, Hashable] = InternalTypes()

    @abstractmethod
    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str | bytes:
        """Write one message: ``str`` becomes a text frame, ``bytes`` a binary one.

        Raises:
            Exception: Anything; the caller of ``send`` gets it as `NotSerializable`.
        """

    @abstractmethod
    def unpack(self, data: str | bytes) -> tuple[Any, Any, Any]:
        """Read one message: ``(type, payload, stamp)``.

        Raises:
            Exception: Anything; the message counts as one that does not decode.
        """


def internal_types_of(protocol: Protocol) -> InternalTypes:
    """The protocol's internal types, whichever way it declares them."""
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


def encode(protocol: Protocol, type: Any, payload: Any, stamp: Any = None) -> tuple[bytes, bool]:
    """Pack one message into the bytes of its frame and whether that frame is binary.

    Raises:
        NotSerializable: The protocol cannot write it.
    """
    try:
        packed = protocol.pack(type, payload, stamp)
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


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def json_encoder() -> Callable[[Any, int], Iterable[str]]:
    """What writes compact JSON, in pieces: the ``json`` module's encoder.

    ``JSONEncoder.encode`` builds its C encoder anew for each call, which costs more than encoding
    a short message does. Where that encoder can be kept and writes the same, it is.
    """
    documented = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
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
    """What reads JSON: the ``json`` module's decoder; NaN and the infinities are no JSON."""
    return json.JSONDecoder(parse_constant=_refuse_constant).decode


def fast_json_decoder() -> Callable[[str], Any] | None:
    """msgspec's decoder, where it is installed; it is faster on short texts.

    Where it has a result, that is the result of `json_decoder` (numbers beyond 64 bits are read
    by the hook). What it refuses is for `json_decoder` to judge.
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

    Values come and go as the ``json`` module of Python maps them. ``NaN`` and the infinities are
    neither written nor read. A lone surrogate in a string is written as its ``\\uXXXX`` escape,
    as ``JSON.stringify`` does.
    """

    name = "wse-default-json"

    def __init__(self) -> None:
        self._encode = json_encoder()
        self._decode = json_decoder()
        self._decode_fast = fast_json_decoder()

    def pack(self, type: Any, payload: Any = None, stamp: Any = None) -> str:
        """Write ``[type,payload,stamp]``.

        Raises:
            NotSerializable: JSON cannot hold the payload, or the type is no string.
        """
        if not isinstance(type, str):
            raise NotSerializable(
                ErrorCode.NOT_SERIALIZABLE,
                {"type": type},
                f"the type of a message is a string in {self.name}, not {type!r}",
            )
        try:
            text = "".join(self._encode((type, payload, stamp), 0))
        except (TypeError, ValueError, RecursionError, OverflowError) as exc:
            raise NotSerializable(
                ErrorCode.NOT_SERIALIZABLE,
                {"type": type},
                f"the payload of {type!r} cannot be written as JSON: {exc}",
            ) from exc
        if text.isascii():
            return text
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            # Only lone surrogates fail, and they can only stand inside JSON strings, where the
            # escape that backslashreplace writes is the JSON escape.
            return text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text

    def decode(self, text: str) -> Any:
        """Read any JSON text.

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
