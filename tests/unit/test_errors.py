"""errors.py: the tree, its builtin bases, one-line texts, pickling, enums of strings."""

import copy
import json
import pickle
import re
from collections.abc import Iterator

import pytest

from wse_tornado import errors
from wse_tornado.errors import (
    AlreadyConnected,
    ConnectionFailed,
    ErrorCode,
    Reason,
    RpcDisconnected,
    RpcError,
    RpcFailed,
    Status,
    WseError,
    origin_of,
)

# The tree as docs/design.md fixes it, with what else a script may catch.
DESIGNED_BASES = {
    "RpcTimeout": TimeoutError,
    "RpcNotRegistered": LookupError,
    "RpcDisconnected": ConnectionError,
    "NotAuthorized": PermissionError,
    "ConnectTimeout": TimeoutError,
    "ConnectionFailed": ConnectionError,
    "ConnectionNotReady": ConnectionError,
    "NotSerializable": TypeError,
}

LINE = re.compile(r"^ *(?P<arms>[ │├└─]*)(?P<name>[A-Z]\w+)(?: {2,}(?P<note>.*))?$")


def descendants(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield sub
            yield from descendants(sub)


def documented_tree() -> dict[str, tuple[str | None, str]]:
    """``{class: (parent, note)}`` as the module's docstring draws it."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str | None, str]] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        match = LINE.match(line)
        if match is None or not hasattr(errors, match["name"]):
            continue
        depth = (match.start("name") - 4) // 4
        del path[depth:]
        tree[match["name"]] = (path[-1] if path else None, match["note"] or "")
        path.append(match["name"])
    return tree


ALL = [WseError, *descendants(WseError)]
INSTANCES = [
    cls("add", details={"rpc": "add"}) if issubclass(cls, RpcError) else cls(None, {"key": 1})
    for cls in ALL
]


def builtin_bases(cls: type) -> list[type]:
    return [base for base in cls.__bases__ if base.__module__ == "builtins"]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    actual = {
        cls.__name__: next(
            (base.__name__ for base in cls.__bases__ if issubclass(base, WseError)), None
        )
        for cls in ALL
    }
    assert {name: parent for name, (parent, _) in documented_tree().items()} == actual


def test_the_notes_in_the_docstring_name_the_builtin_bases() -> None:
    for name, (_, note) in documented_tree().items():
        cls = getattr(errors, name)
        said = set(re.findall(r"also (\w+)", note))
        bases = {base.__name__ for base in builtin_bases(cls)} - {"Exception"}
        assert said == bases, name


@pytest.mark.parametrize("name", DESIGNED_BASES)
def test_a_script_can_catch_the_builtin_that_it_would_expect(name: str) -> None:
    assert issubclass(getattr(errors, name), DESIGNED_BASES[name])


def test_every_error_is_a_public_name_of_the_module() -> None:
    assert {cls.__name__ for cls in ALL} <= set(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_an_error_without_a_code_has_that_of_its_class(error: WseError) -> None:
    assert error.code == str(type(error).default_code)
    assert type(error.code) is str
    assert error.code in set(ErrorCode)


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: WseError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert again.__dict__ == error.__dict__
        assert again.args == error.args
        assert str(again) == str(error)


def test_pickling_keeps_what_subclasses_add() -> None:
    error = RpcDisconnected("add", None, {"disconnected": [1006, ""]}, "gone", sent=False)
    again = pickle.loads(pickle.dumps(error))
    assert (again.rpc, again.sent, again.details) == ("add", False, {"disconnected": [1006, ""]})
    assert isinstance(again, ConnectionError)


def test_pickling_keeps_the_class_of_a_users_own_error() -> None:
    again = pickle.loads(pickle.dumps(SoldOut(left=0)))
    assert type(again) is SoldOut
    assert (again.code, again.details, again.left) == ("shop.sold-out", {"left": 0}, 0)


class SoldOut(WseError):
    """An error of a user's own, with a constructor of another form."""

    def __init__(self, *, left: int) -> None:
        super().__init__("shop.sold-out", {"left": left})
        self.left = left


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_no_error_pretends_to_have_an_errno(error: WseError) -> None:
    assert error.args == (error.message,)
    if isinstance(error, OSError):
        assert error.errno is None
        assert error.strerror is None
        assert error.filename is None


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_str_is_one_line_whatever_the_message(cls: type[WseError]) -> None:
    message = "first\nsecond\r\n\tthird\u2028fourth  "
    error = cls("add", message=message) if issubclass(cls, RpcError) else cls(message=message)
    assert str(error) == "first second third fourth"
    assert error.message == message


def test_str_is_readable_without_a_message() -> None:
    assert str(WseError("shop.sold-out")) == "shop.sold-out"
    assert str(WseError("shop.sold-out", {"left": 0})) == "shop.sold-out (left=0)"


def test_str_of_an_os_error_among_its_bases_is_still_the_message() -> None:
    # OSError.__str__ would print "[Errno …]" of the arguments.
    assert str(ConnectionFailed(None, {"a": 1}, "cannot reach ws://nowhere")) == (
        "cannot reach ws://nowhere"
    )


def test_repr_tells_code_and_details() -> None:
    assert repr(WseError("a.code", {"n": 1})) == "WseError(code='a.code', details={'n': 1})"


def test_details_are_a_copy() -> None:
    details = {"a": 1}
    error = WseError("x", details)
    error.details["b"] = 2
    assert details == {"a": 1}


def test_an_rpc_error_names_its_procedure() -> None:
    assert RpcFailed("add", "shop.sold-out").rpc == "add"
    assert RpcDisconnected("add").sent is True


def test_already_connected_can_be_raised_without_arguments() -> None:
    with pytest.raises(AlreadyConnected, match="already-connected"):
        raise AlreadyConnected


@pytest.mark.parametrize("member", [*ErrorCode, *Reason, *Status], ids=repr)
def test_enum_members_are_their_strings(member: str) -> None:
    value = member.value  # type: ignore[attr-defined]
    assert member == value
    assert hash(member) == hash(value)
    assert str(member) == value
    assert f"{member}" == value
    assert f"{member:>40}" == f"{value:>40}"
    assert json.dumps(member) == json.dumps(value)
    assert {value: 1}[member] == 1


def test_the_close_reasons_are_those_of_the_wire() -> None:
    assert {
        Reason.BY_CLIENT: "wse.by-client",
        Reason.BY_SERVER: "wse.by-server",
        Reason.NOT_AUTHORIZED: "wse.not-authorized",
        Reason.PROTOCOL_ERR: "wse.protocol-error",
        Reason.CLIENTS_CONCURRENCY: "wse.clients-concurrency",
        Reason.JUMP: "jump",
    }.items() <= {member: member.value for member in Reason}.items()
    assert [member.value for member in Status] == [
        "IDLE",
        "CONNECTING",
        "READY",
        "OFFLINE",
        "RE_CONNECTING",
    ]


def test_the_names_of_the_seed_are_aliases() -> None:
    assert errors.WSE_ERROR is ErrorCode
    assert errors.WSE_REASON is Reason
    assert errors.WSE_STATUS is Status


def test_origin_tells_type_and_text_only() -> None:
    assert origin_of(KeyError("a")) == {"name": "KeyError", "message": "'a'"}
