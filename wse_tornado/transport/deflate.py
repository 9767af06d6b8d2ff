"""permessage-deflate (RFC 7692), without I/O: what both ends agree on, deflating and inflating.

The server's half of the agreement is made here and not by Tornado, which would keep a compressor
and a decompressor of its own for each connection (about 300 KB), declines no offer that it cannot
fulfil, and never asks for `server_no_context_takeover`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import INVALID_DATA, TOO_BIG, FrameError

__all__ = ["COMPRESS_FROM", "Agreement", "Deflater", "Inflater", "agree", "agreed"]

# Smaller messages hardly shrink, and deflating costs more than sending what it would save.
COMPRESS_FROM = 256

NAME = "permessage-deflate"
_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 7.2.1: not sent at the end of a message
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = ("server_max_window_bits", "client_max_window_bits")
_LEVEL = 6
_MEM_LEVEL = 8


@dataclass(frozen=True)
class Agreement:
    """What one end does, seen from there.

    Attributes:
        deflate_bits: The window this end compresses with.
        deflate_takeover: Whether this end's messages refer to earlier ones.
        inflate_bits: The window of the other end.
        inflate_takeover: The same for the other end's messages.
        level: zlib's level.
        mem_level: zlib's memory level.
    """

    deflate_bits: int = zlib.MAX_WBITS
    deflate_takeover: bool = True
    inflate_bits: int = zlib.MAX_WBITS
    inflate_takeover: bool = True
    level: int = _LEVEL
    mem_level: int = _MEM_LEVEL


class Deflater:
    """Compresses the messages of one connection, in order.

    Attributes:
        shared_key: Connections with equal keys compress a message to equal bytes; None where each
            has a context of its own.
    """

    __slots__ = ("_agreement", "_compressor", "shared_key")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._compressor = self._make() if agreement.deflate_takeover else None
        self.shared_key: tuple[int, int, int] | None = None
        if self._compressor is None:
            self.shared_key = (agreement.deflate_bits, agreement.level, agreement.mem_level)

    def _make(self) -> Any:
        agreement = self._agreement
        return zlib.compressobj(
            agreement.level, zlib.DEFLATED, -agreement.deflate_bits, agreement.mem_level
        )

    def deflate(self, payload: bytes) -> bytes:
        """The payload of a compressed message."""
        compressor = self._compressor or self._make()
        data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[:-4]


class Inflater:
    """Inflates the messages of one connection, in order."""

    __slots__ = ("_bits", "_decompressor", "_takeover")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = agreement.inflate_bits
        self._takeover = agreement.inflate_takeover
        self._decompressor: Any = None

    def inflate(self, data: bytes, max_size: int) -> bytes:
        """The message, of so many bytes at most; no more than that is ever inflated.

        Raises:
            FrameError: It is larger (1009), or not deflated (1007).
        """
        decompressor = self._decompressor or zlib.decompressobj(-max(self._bits, 9))
        try:
            # One byte more tells too large from just large enough.
            message: bytes = decompressor.decompress(data + _TAIL, max_size + 1)
        except zlib.error:
            raise FrameError(INVALID_DATA, "a compressed message does not inflate") from None
        if len(message) > max_size:
            raise FrameError(TOO_BIG, "message too big after inflating")
        # After a block with BFINAL (RFC 7692 7.2.3.5) the next message begins a new stream.
        self._decompressor = decompressor if self._takeover and not decompressor.eof else None
        return message


def _parse(header: str) -> Iterator[dict[str, str | None] | None]:
    """The parameters of each permessage-deflate in a header; None for one that is malformed."""
    for extension in header.split(","):
        name, *rest = (part.strip() for part in extension.split(";"))
        if name.lower() != NAME:
            continue
        parameters: dict[str, str | None] = {}
        well_formed = True
        for parameter in rest:
            key, equals, value = (part.strip() for part in parameter.partition("="))
            if key in parameters:
                well_formed = False
            parameters[key] = value.strip('"') if equals else None
        for key, given in parameters.items():
            if key in _FLAGS:
                well_formed = well_formed and given is None
            elif key in _BITS:
                well_formed = well_formed and (
                    (given is None and key == "client_max_window_bits")
                    or given in ("8", "9", "10", "11", "12", "13", "14", "15")
                )
            else:
                well_formed = False
        yield parameters if well_formed else None


def _bits(parameters: Mapping[str, str | None], key: str) -> int:
    value = parameters.get(key)
    return zlib.MAX_WBITS if value is None else int(value)


def agree(offers: str, options: Mapping[str, Any]) -> tuple[str, Agreement] | None:
    """Accept an offer of a client (RFC 7692 5.1).

    Args:
        offers: Its ``Sec-WebSocket-Extensions``.
        options: ``compression_level``, ``mem_level`` and ``server_no_context_takeover``.

    Returns:
        The header to answer with, and what it means; None where there is no offer to accept.
    """
    for offer in _parse(offers):
        if offer is None:
            continue
        bits = _bits(offer, "server_max_window_bits")
        if bits < 9:  # zlib has no raw deflate with a window of 256 bytes
            continue
        takeover = "server_no_context_takeover" not in offer
        takeover = takeover and not options.get("server_no_context_takeover")
        answer = [NAME]
        if not takeover:
            answer.append("server_no_context_takeover")
        if "client_no_context_takeover" in offer:
            answer.append("client_no_context_takeover")
        if "server_max_window_bits" in offer:
            answer.append(f"server_max_window_bits={bits}")
        if offer.get("client_max_window_bits") is not None:
            answer.append(f"client_max_window_bits={offer['client_max_window_bits']}")
        return "; ".join(answer), Agreement(
            deflate_bits=bits,
            deflate_takeover=takeover,
            inflate_bits=_bits(offer, "client_max_window_bits"),
            inflate_takeover="client_no_context_takeover" not in offer,
            level=options.get("compression_level", _LEVEL),
            mem_level=options.get("mem_level", _MEM_LEVEL),
        )
    return None


def agreed(answer: str, options: Mapping[str, Any]) -> Agreement | None:
    """What a server accepted, seen from the client.

    Raises:
        ValueError: The answer makes no sense, or asks for what zlib cannot do.
    """
    for accepted in _parse(answer):
        if accepted is None:
            raise ValueError(f"the server's answer {answer!r} makes no sense")
        bits = _bits(accepted, "client_max_window_bits")
        if bits < 9:
            raise ValueError("zlib has no raw deflate with a window of 256 bytes")
        return Agreement(
            deflate_bits=bits,
            deflate_takeover="client_no_context_takeover" not in accepted,
            inflate_bits=_bits(accepted, "server_max_window_bits"),
            inflate_takeover="server_no_context_takeover" not in accepted,
            level=options.get("compression_level", _LEVEL),
            mem_level=options.get("mem_level", _MEM_LEVEL),
        )
    return None
