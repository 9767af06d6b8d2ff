"""The values of payloads: common types that JSON lacks, and which value an encoder refused.

No I/O, and no import of what the values come from (numpy).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from .errors import printable

__all__ = ["Refused", "common_types", "find_refused"]

Default = Callable[[Any], Any]


def common_types(value: Any) -> Any:
    """Write common Python values: ``JsonProtocol(default=common_types)``.

    =====================================  ==============================================
    a dataclass                            an object of its fields
    ``datetime``, ``date``, ``time``       ISO 8601 text
    ``UUID``, ``Decimal``, ``Path``        ``str(value)``
    an ``Enum``                            its value
    ``set``, ``frozenset``                 a list, sorted if its items can be compared
    numpy scalars and arrays               numbers, text and lists of them
    =====================================  ==============================================

    They arrive as what they were written as: text, numbers, lists and dictionaries.

    Raises:
        TypeError: It is none of these.
    """
    if isinstance(value, (date, time)):  # every datetime is a date
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if any(base.__module__.partition(".")[0] == "numpy" for base in type(value).__mro__):
        written = value.tolist() if hasattr(value, "tolist") else value
        if type(written) is not type(value):  # long doubles return themselves
            return written
    raise TypeError(f"{_type_name(value)} is none of the common types")


class Refused(NamedTuple):
    """What an encoder refused.

    Attributes:
        at: Its place in the payload, as in ``$.rows[3].when``.
        why: A phrase that says where, what, and how to write it.
    """

    at: str
    why: str


_DEEPEST = 100  # levels to search; deeper places would not be readable


def find_refused(
    payload: Any, exc: Exception, write: Default, default: Default | None, format: str
) -> Refused:
    """Which value of ``payload`` could not be written.

    Writes parts of the payload again, halving them, so the cost is that of a few whole writings.
    Names types and places only: values do not belong into logs.

    Args:
        payload: The payload.
        exc: What writing it raised.
        write: Writes any value, or raises.
        default: What ``write`` applies to values of other types, if anything.
        format: The name of the format, ``"JSON"`` or ``"MessagePack"``.
    """
    if isinstance(exc, RecursionError) or "nested too deeply" in str(exc):
        return Refused("$", "it is nested too deeply, or contains itself")
    at = "$"
    value = payload
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        if id(value) in seen:
            return Refused(at, f"{_shown(at)} contains itself")
        seen.add(id(value))
        if isinstance(value, dict):
            items = list(value.items())
            found = _first_refused(items, lambda part: write(dict(part)))
            if found is None:
                break
            key, item = items[found]
            if not _fails(write, item):
                at_key = f"a map key of {_shown(at)} is of type {_type_name(key)}"
                keys = "str" if format == "JSON" else "str or bytes"
                return Refused(at, f"{at_key}; keys are {keys}")
            at += f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{_key(key)}]"
            value = item
        elif isinstance(value, (list, tuple)):
            found = _first_refused(value, lambda part: write(list(part)))
            if found is None:
                break
            at += f"[{found}]"
            value = value[found]
        else:
            try:
                written = default(value) if default is not None else value
            except Exception:
                written = value
            if written is value:
                return Refused(at, f"{_shown(at)} is {_what(value)}; {_advice(value, format)}")
            value = written
    return Refused(at, printable(str(exc)))


def _fails(write: Default, value: Any) -> bool:
    try:
        write(value)
    except Exception:
        return True
    return False


def _first_refused(items: Any, write: Default) -> int | None:
    """The index of the first of ``items`` that cannot be written, by halving."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        if _fails(write, items[low:middle]):
            high = middle
        else:
            low = middle
    return low if high > low and _fails(write, items[low:high]) else None


def _shown(at: str) -> str:
    return printable(at, 200)


def _key(key: Any) -> str:
    return json.dumps(key) if isinstance(key, str) else printable(repr(key), 40)


def _type_name(value: Any) -> str:
    kind = type(value)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _what(value: Any) -> str:
    if isinstance(value, float):
        return repr(float(value))
    return f"of type {_type_name(value)}"


def _advice(value: Any, format: str) -> str:
    if isinstance(value, float):
        return f"{format} has no NaN or infinity, send None instead"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "send text, for instance base64, or use wse_tornado.msgpack.MsgpackProtocol"
    if isinstance(value, int):
        return "send an int of more than 64 bits as a str"
    if isinstance(value, str):
        return "it is not Unicode text, or too long"
    try:
        common_types(value)
    except Exception:
        return "convert it, or give the protocol a function default= that does"
    return "give the protocol default=wse_tornado.protocol.common_types, or convert it"
