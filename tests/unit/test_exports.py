"""The public names, their docstrings, and what importing brings in."""

import enum
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import wse_tornado
from wse_tornado import testing

from ..support import seconds
from ..support.process import TESTS, environment

PACKAGE = Path(wse_tornado.__file__).parent

# -- names


def test_all_names_what_the_package_offers() -> None:
    offered = {
        name
        for name, value in vars(wse_tornado).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(wse_tornado.__all__) == offered | {"__version__"}
    assert len(wse_tornado.__all__) == len(set(wse_tornado.__all__))


# -- docstrings

# What a user holds without importing it by name.
REACHED = [
    testing.Connector,
    testing.Event,
    testing.Recorder,
    testing.Served,
]
if importlib.util.find_spec("msgpack") is not None:
    REACHED.append(importlib.import_module("wse_tornado.msgpack").MsgpackProtocol)
FUNCTIONS = [testing.connect, testing.serving]
PUBLIC_CLASSES = [
    value
    for name in wse_tornado.__all__
    if inspect.isclass(value := getattr(wse_tornado, name)) and not name.startswith("WSE_")
] + REACHED


def own_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the package's own classes define."""
    for base in cls.__mro__:
        if not base.__module__.startswith("wse_tornado"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or issubclass(base, enum.Enum):
                continue
            fn = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
            if isinstance(fn, FunctionType):
                yield f"{base.__module__}.{base.__name__}.{name}", fn


MEMBERS = dict(sorted({key: fn for cls in PUBLIC_CLASSES for key, fn in own_members(cls)}.items()))
MEMBERS |= {f"{fn.__module__}.{fn.__qualname__}": fn for fn in FUNCTIONS}


@pytest.mark.parametrize("cls", PUBLIC_CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_public_class_has_a_docstring(cls: type) -> None:
    assert cls.__doc__, cls
    assert cls.__doc__.strip()[-1] in ".:)`" or "\n" in cls.__doc__


def test_every_public_method_has_a_docstring() -> None:
    assert [name for name, fn in MEMBERS.items() if not (fn.__doc__ or "").strip()] == []


# -- what importing brings in


def output_of(*program: str) -> str:
    """What a program prints, which must warn of nothing."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds(30),
        cwd=TESTS,
        env=environment(),
    )
    assert result.stderr == ""
    return result.stdout


def test_importing_brings_in_tornado_and_the_standard_library_only() -> None:
    new = output_of(
        "import sys",
        # What Tornado itself may bring in, such as colorama, is not ours to judge.
        "import tornado.web, tornado.websocket, tornado.httpserver, tornado.httpclient",
        "before = set(sys.modules)",
        "import wse_tornado",
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}",
        "print(*sorted(new - set(sys.stdlib_module_names)))",
    )
    assert set(new.split()) - {"tornado"} == {"wse_tornado"}


def test_importing_starts_no_thread_and_opens_no_socket() -> None:
    opened = output_of(
        "import sys",
        "opened, wrong = [], ('socket.__new__', 'socket.bind', '_thread.start_new_thread')",
        "sys.addaudithook(lambda event, args: opened.append(event) if event in wrong else None)",
        "import wse_tornado, threading",
        "print(opened, threading.active_count())",
    )
    assert opened.strip() == "[] 1"


def test_an_object_shows_its_documented_names_only() -> None:
    """``dir()`` of what users hold shows no engine: methods and properties with docstrings."""
    loop = wse_tornado.LoopThread("a loop that never runs")
    servers = [wse_tornado.WseServer(loop=loop), wse_tornado.AsyncWseServer()]
    objects: list[object] = [
        *servers,
        wse_tornado.WseClient("ws://localhost:1", loop=loop),
        wse_tornado.AsyncWseClient("ws://localhost:1"),
        servers[0]._face_of(Unused()),
        servers[0]._face_of_user(Unused()),
        servers[1]._face_of(Unused()),
        servers[1]._face_of_user(Unused()),
    ]
    for held in objects:
        names = [name for name in dir(held) if not name.startswith("_")]
        members = {name: getattr(type(held), name, None) for name in names}
        assert [
            name for name, member in members.items() if not getattr(member, "__doc__", "")
        ] == []


class Unused:
    """Stands for a connection, or a user, that nothing is asked of."""
