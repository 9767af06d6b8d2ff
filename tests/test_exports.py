"""The public names, their docstrings, what importing brings in, and which room imports which."""

import ast
import enum
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import wse_tornado
from wse_tornado import WseError, testing
from wse_tornado.aio.client import ClientSignals
from wse_tornado.aio.connection import Connection
from wse_tornado.aio.identity import ClientIdentity
from wse_tornado.aio.server import ServerSignals
from wse_tornado.blocking.server import ClientIdentity as BlockingClientIdentity
from wse_tornado.blocking.server import Connection as BlockingConnection
from wse_tornado.events import Channel, Signal

from .support import seconds

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


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_all_of_every_module_names_things_that_are_there(module: Path) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
    defined = {
        name for node in tree.body for name in assigned_names(node) if not name.startswith("_")
    }
    listed = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and "__all__" in assigned_names(node)
        ),
        [],
    )
    if module.parent != PACKAGE or module.stem != "__init__":
        assert set(listed) <= defined, f"{module}: {set(listed) - defined}"


def assigned_names(node: ast.stmt) -> list[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.If(body=body, orelse=orelse) | ast.Try(body=body, orelse=orelse):
            return [name for inner in [*body, *orelse] for name in assigned_names(inner)]
    return []


# -- docstrings

# What a user holds without importing it by name.
REACHED = [
    BlockingClientIdentity,
    BlockingConnection,
    Channel,
    ClientIdentity,
    ClientSignals,
    Connection,
    ServerSignals,
    Signal,
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


def test_there_are_members_to_check() -> None:
    assert "wse_tornado.blocking.client.WseClient.connect" in MEMBERS
    assert "wse_tornado.aio.server.AsyncWseServer.broadcast" in MEMBERS
    assert "wse_tornado.aio.connection.Connection.send" in MEMBERS
    assert "wse_tornado.testing.Served.drop" in MEMBERS
    assert "wse_tornado.testing.serving" in MEMBERS


def test_every_public_method_has_a_docstring() -> None:
    assert [name for name, fn in MEMBERS.items() if not (fn.__doc__ or "").strip()] == []


# Functions of the library that raise in the caller because of what the caller did or the peer was.
RAISES_OF: dict[str, set[str]] = {
    "check_user_type": {"ValueError"},
    "check_rpc_name": {"ValueError"},
    "check_handler": {"TypeError"},
    "encode": {"NotSerializable"},
    "check_timeout": {"ValueError"},
    "ready_link": {"ConnectionNotReady"},
    "check_url": {"ValueError"},
    "check_meta": {"TypeError"},
    "check_may_block": {"WrongThread"},
    "check_process": {"WrongThread"},
    "pack": {"NotSerializable", "ValueError"},
}


def raised_in(fn: Callable[..., Any]) -> set[str]:
    """What the body of a function raises itself, or through the checks it calls."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(fn))).body
    found: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) | ast.Raise(exc=ast.Name(id=name)):
                if isinstance(resolve(name), type):
                    found.add(name)
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
                found |= RAISES_OF.get(name, set())
    return found - {"NotImplementedError", "StopIteration"}


def resolve(name: str) -> Any:
    return getattr(wse_tornado, name, None) or __builtins__.get(name)  # type: ignore[attr-defined]


def documented_raises(fn: Callable[..., Any]) -> set[str]:
    doc = inspect.cleandoc(fn.__doc__ or "")
    section = re.search(r"^Raises:\n((?: +.*\n?|\n)+)", doc, re.MULTILINE)
    if section is None:
        return set()
    heads = re.findall(r"^    (\w[\w, ]*):", section[1], re.MULTILINE)
    return {name.strip() for head in heads for name in head.split(",")}


def covers(documented: str, raised: str) -> bool:
    one, other = resolve(documented), resolve(raised)
    return isinstance(one, type) and isinstance(other, type) and issubclass(other, one)


def undocumented(documented: set[str], raised: set[str]) -> list[str]:
    """Errors that are raised and not told, and names that are told and are no errors."""
    missing = {name for name in raised if not any(covers(known, name) for known in documented)}
    unknown = {name for name in documented if not isinstance(resolve(name), type)}
    return [f"not told: {name}" for name in missing] + [f"no public error: {n}" for n in unknown]


def test_what_a_public_method_raises_stands_in_its_docstring() -> None:
    problems = {
        name: found
        for name, fn in MEMBERS.items()
        if (found := undocumented(documented_raises(fn), raised_in(fn)))
    }
    assert problems == {}


# Constructors are documented with their classes.
@pytest.mark.parametrize("cls", PUBLIC_CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_what_a_constructor_raises_stands_in_the_docstring_of_its_class(cls: type) -> None:
    init = vars(cls).get("__init__") or vars(cls).get("__post_init__")
    init = vars(cls).get("__post_init__", init)
    if not isinstance(init, FunctionType) or "dataclass" in init.__qualname__:
        return
    try:
        raised = raised_in(init)
    except (OSError, TypeError):  # made by dataclass
        return
    assert undocumented(documented_raises(cls), raised) == []


# -- what importing brings in


def test_importing_brings_in_tornado_and_the_standard_library_only() -> None:
    program = (
        "import sys\n"
        # What Tornado itself may bring in, such as colorama, is not ours to judge.
        "import tornado.web, tornado.websocket, tornado.httpserver, tornado.httpclient\n"
        "before = set(sys.modules)\n"
        "import wse_tornado\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('\\n'.join(sorted(new - set(sys.stdlib_module_names))))\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds(30),
        cwd=PACKAGE.parent,
    )
    assert set(result.stdout.split()) - {"tornado"} == {"wse_tornado"}
    assert result.stderr == ""


def test_importing_starts_no_thread_and_opens_no_socket() -> None:
    program = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(event)"
        " if event in ('socket.__new__', 'socket.bind', '_thread.start_new_thread') else None)\n"
        "import wse_tornado, threading\n"
        "print(opened, threading.active_count())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds(30),
        cwd=PACKAGE.parent,
    )
    assert result.stdout.strip() == "[] 1"


# -- rooms (DESIGN.md section 1)

ROOMS = [
    "errors",
    "entropy",
    "limits",
    "stats",
    "values",
    "protocol",
    "events",
    "rpc",
    "admission",
    "challenge",
    "backoff",
    "msgpack",
    "transport",
    "aio",
    "blocking",
    "testing",
    "__init__",
    "cli",
    "__main__",
]
CORE = ROOMS[: ROOMS.index("msgpack")]


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def run_time_imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, ``TYPE_CHECKING`` blocks left out."""
    relative = path.relative_to(PACKAGE.parent).with_suffix("")
    package = list(relative.parts[:-1])

    def visit(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                yield from visit(node.orelse)
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    base = package[: len(package) - node.level + 1]
                    base += node.module.split(".") if node.module else []
                    if node.module:
                        yield ".".join(base)
                    else:
                        yield from (".".join([*base, alias.name]) for alias in node.names)
                else:
                    yield node.module or ""
            else:
                for field in ("body", "orelse", "finalbody"):
                    yield from visit(getattr(node, field, []))
                for handler in getattr(node, "handlers", []):
                    yield from visit(handler.body)

    yield from visit(ast.parse(path.read_text("utf-8")).body)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_stands_in_a_known_room() -> None:
    assert {room_of(path) for path in FILES} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_room_imports_only_from_those_above_it(path: Path) -> None:
    room = room_of(path)
    for name in run_time_imports(path):
        if not name.startswith("wse_tornado."):
            top = ROOMS.index(room) > ROOMS.index("__init__")
            assert name != "wse_tornado" or top, f"{path} imports {name}"
            continue
        other = name.split(".")[1]
        assert other == room or ROOMS.index(other) < ROOMS.index(room), f"{path} imports {name}"


@pytest.mark.parametrize("room", CORE)
def test_nothing_above_transport_imports_tornado_sockets_or_starts_threads(room: str) -> None:
    path = PACKAGE / f"{room}.py"
    outside = {name.split(".")[0] for name in run_time_imports(path)} - {"wse_tornado"}
    forbidden = {"tornado", "socket", "ssl", "asyncio", "selectors", "concurrent", "uvloop"}
    assert not outside & forbidden
    accelerators = {"msgspec"}  # where installed, and not before they are used
    assert outside <= set(sys.stdlib_module_names) | accelerators
    # Locks are no threads.
    source = path.read_text("utf-8")
    assert set(re.findall(r"\bthreading\.(\w+)", source)) <= {"Lock", "RLock"}
    assert "start_new_thread" not in source


@pytest.mark.parametrize("room", CORE)
def test_each_core_module_names_its_public_things(room: str) -> None:
    module = sys.modules[f"wse_tornado.{room}"]
    assert module.__all__
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_public_error_can_be_caught_as_wse_error() -> None:
    raised = [
        value
        for name in wse_tornado.__all__
        if inspect.isclass(value := getattr(wse_tornado, name)) and issubclass(value, Exception)
    ]
    assert len(raised) > 15
    assert all(issubclass(cls, WseError) for cls in raised)
