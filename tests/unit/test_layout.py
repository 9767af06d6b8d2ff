"""The layout: no circle of imports, and arrows point down only (docs/design.md)."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import wse_tornado

PACKAGE = Path(wse_tornado.__file__).parent

# From the bottom up: a module imports from its own layer and those before it. A layer is a module
# or a package. To be completed where a layer is added.
LAYERS = [
    *[
        "errors",
        "entropy",
        "limits",
        "stats",
        "values",
        "protocol",
        "events",
        "signals",
        "rpc",
        "admission",
        "resume",
    ],
    *["challenge", "backoff", "msgpack", "transport", "core", "faces", "aio", "blocking"],
    *["testing", "__init__", "cli", "__main__"],
]
WITHOUT_IO = LAYERS[: LAYERS.index("msgpack")]
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def statements(tree: ast.AST, *, at_run_time: bool) -> Iterator[ast.AST]:
    """All nodes, or all that are not below ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if at_run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from statements(node, at_run_time=at_run_time)


def imports(name: str, *, at_run_time: bool = False) -> Iterator[str]:
    """The modules that a module imports, those for types alone included: names inside the package
    without its own, and of others the first part with a colon behind."""
    parts = name.split(".")
    tree = ast.parse(FILES[name].read_text("utf-8"))
    for node in statements(tree, at_run_time=at_run_time):
        if isinstance(node, ast.Import):
            yield from (f"{alias.name.partition('.')[0]}:" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield f"{(node.module or '').partition('.')[0]}:"
                continue
            base = [*parts[: len(parts) - node.level], *filter(None, [node.module])]
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found = ".".join(base) or "__init__"
                yield (
                    inner if inner in FILES else (found if found in FILES else f"{found}.__init__")
                )


INSIDE = {name: {each for each in imports(name) if each[-1] != ":"} for name in FILES}
ABSOLUTE = [name for name in FILES if "wse_tornado:" in imports(name)]


def layer(name: str) -> int:
    return LAYERS.index(name.partition(".")[0])


def test_every_module_stands_in_a_layer() -> None:
    assert {name.partition(".")[0] for name in FILES} <= set(LAYERS)


@pytest.mark.parametrize("name", FILES)
def test_a_module_says_what_it_is_and_its_arrows_point_down(name: str) -> None:
    assert name not in ABSOLUTE, "imports inside of the package are relative"
    above = [other for other in INSIDE[name] if layer(other) > layer(name)]
    assert not above
    assert ast.get_docstring(ast.parse(FILES[name].read_text("utf-8")))


def test_there_is_no_circle_of_imports() -> None:
    try:
        list(TopologicalSorter(INSIDE).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", WITHOUT_IO)
def test_the_core_without_io_imports_nothing_that_does_io(name: str) -> None:
    outside = {each[:-1] for each in imports(name, at_run_time=True) if each[-1] == ":"}
    io = {"tornado", "socket", "ssl", "asyncio", "selectors", "concurrent", "uvloop"}
    assert not outside & io
    accelerators = {"msgspec"}  # where installed, and not before they are used
    assert outside <= set(sys.stdlib_module_names) | accelerators
    # Locks are no threads.
    source = FILES[name].read_text("utf-8")
    assert set(re.findall(r"\bthreading\.(\w+)", source)) <= {"Lock", "RLock"}
    module = importlib.import_module(f"wse_tornado.{name}")
    assert module.__all__
    assert all(hasattr(module, each) for each in module.__all__)
