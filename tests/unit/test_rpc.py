"""rpc.py: procedures, pending calls, and errors as they travel (docs/wire.md 4)."""

import json
import re
from typing import Any

import pytest

from wse_tornado import (
    ErrorCode,
    RpcDisconnected,
    RpcError,
    RpcFailed,
    RpcNotRegistered,
    RpcTimeout,
    WseError,
)
from wse_tornado.rpc import (
    PendingCalls,
    Procedures,
    check_rpc_name,
    disconnected_error,
    error_from_payload,
    new_stamp,
    payload_from_error,
    timeout_error,
)


def add(payload: Any) -> int:
    return int(payload["a"] + payload["b"])


# -- procedures


def test_a_procedure_is_found_by_its_name() -> None:
    procedures = Procedures(("payload",))
    assert procedures.register("add", add) is add

    @procedures.register("subtract", inline=True)
    def subtract(payload: Any) -> int:
        return 0

    assert procedures["add"].fn is add
    assert not procedures["add"].inline
    assert procedures["subtract"].fn is subtract
    assert procedures["subtract"].inline
    assert procedures.get("multiply") is None
    assert list(procedures) == ["add", "subtract"]
    assert len(procedures) == 2


def test_a_name_can_be_taken_once() -> None:
    procedures = Procedures(("payload",))
    procedures.register("add", add)
    with pytest.raises(WseError, match="'add' is registered already; unregister it first") as error:
        procedures.register("add", add)
    assert error.value.code == ErrorCode.RP_ALREADY_REGISTERED
    procedures.unregister("add")
    procedures.register("add", add)


def test_an_unknown_procedure_cannot_be_unregistered() -> None:
    with pytest.raises(WseError, match="no procedure named 'add' is registered") as error:
        Procedures(("payload",)).unregister("add")
    assert error.value.code == ErrorCode.RP_NOT_REGISTERED


@pytest.mark.parametrize("name", ["", None, 5, b"add", ["add"], True], ids=repr)
def test_the_name_of_a_procedure_is_a_non_empty_string(name: Any) -> None:
    with pytest.raises(ValueError, match="non-empty string"):
        check_rpc_name(name)
    with pytest.raises(ValueError, match="non-empty string"):
        Procedures(("payload",)).register(name, add)
    with pytest.raises(ValueError, match="non-empty string"):
        Procedures(("payload",)).register(name)


def test_names_of_the_library_are_refused() -> None:
    with pytest.raises(ValueError, match="belongs to the library"):
        Procedures(("payload",)).register("~wse:add", add)


def test_a_procedure_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="the procedure 'add' is called with"):
        Procedures(("conn", "payload")).register("add", add)


# -- pending calls


class Waiter:
    def __init__(self) -> None:
        self.outcomes: list[tuple[Any, WseError | None]] = []

    def __call__(self, result: Any, error: WseError | None) -> None:
        self.outcomes.append((result, error))


def test_an_answer_reaches_its_own_call_once() -> None:
    pending, one, two = PendingCalls(), Waiter(), Waiter()
    pending.add("add", "s1", one)
    pending.add("add", "s2", two)
    assert len(pending) == 2
    assert "s1" in pending
    assert pending.resolve("s2", 2)
    assert not pending.resolve("s2", 3)
    assert pending.resolve("s1", 1)
    assert one.outcomes == [(1, None)]
    assert two.outcomes == [(2, None)]
    assert len(pending) == 0


@pytest.mark.parametrize("stamp", ["late", "", None, 0, 7, [], {}, True, ["s"]], ids=repr)
def test_an_answer_with_an_unknown_stamp_is_dropped(stamp: Any) -> None:
    pending, waiter = PendingCalls(), Waiter()
    pending.add("add", "s", waiter)
    assert pending.resolve(stamp, 1) is False
    assert pending.reject(stamp, {}) is False
    assert waiter.outcomes == []


def test_an_error_answer_reaches_its_call() -> None:
    pending, waiter = PendingCalls(), Waiter()
    pending.add("add", "s", waiter)
    assert pending.reject("s", {"code": "shop.sold-out", "details": {"left": 0}})
    ((result, error),) = waiter.outcomes
    assert result is None
    assert isinstance(error, RpcFailed)
    assert (error.rpc, error.code, error.details) == ("add", "shop.sold-out", {"left": 0})


def test_a_forgotten_call_gets_nothing() -> None:
    pending, waiter = PendingCalls(), Waiter()
    pending.add("add", "s", waiter)
    assert pending.forget("s") is True
    assert pending.forget("s") is False
    assert not pending.resolve("s", 1)
    pending.fail_all(1006, "")
    assert waiter.outcomes == []


def test_the_end_of_the_connection_fails_all_calls() -> None:
    pending, waiters = PendingCalls(), [Waiter(), Waiter()]
    for number, waiter in enumerate(waiters):
        pending.add(f"rp{number}", f"s{number}", waiter)
    pending.fail_all(1000, "the show is over")
    for number, waiter in enumerate(waiters):
        ((_, error),) = waiter.outcomes
        assert isinstance(error, RpcDisconnected)
        assert error.rpc == f"rp{number}"
        assert error.code == "wse.client.rp.disconnect"
        assert error.details == {"disconnected": [1000, "the show is over"]}
        assert error.sent
    assert len(pending) == 0


def test_a_call_made_while_calls_fail_is_not_failed_with_them() -> None:
    pending, second = PendingCalls(), Waiter()
    pending.add("one", "s1", lambda result, error: pending.add("two", "s2", second))
    pending.fail_all(1006, "")
    assert second.outcomes == []
    assert "s2" in pending


def test_stamps_are_ten_letters_and_digits_that_do_not_repeat() -> None:
    stamps = {new_stamp() for _ in range(10_000)}
    assert len(stamps) == 10_000
    assert all(re.fullmatch("[A-Za-z0-9]{10}", stamp) for stamp in stamps)
    assert new_stamp("~wse:call:add:").startswith("~wse:call:add:")


# -- errors of this end


def test_a_time_out_says_what_and_how_long() -> None:
    error = timeout_error("add", 1.5)
    assert isinstance(error, RpcTimeout)
    assert str(error) == "no answer to the call of 'add' within 1.5 s"
    assert error.code == "wse.client.rp.timeout"


def test_a_disconnect_says_whether_the_call_had_left() -> None:
    before = disconnected_error("add", 1006, "", sent=False)
    after = disconnected_error("add", 1000, "wse.by-server", sent=True)
    assert (before.sent, after.sent) == (False, True)
    assert str(before) == "the connection ended (1006) before the call was sent: 'add'"
    assert str(after) == ("the connection ended (1000 wse.by-server) before the answer came: 'add'")


# -- reading error answers


def test_not_registered_has_a_class_of_its_own() -> None:
    error = error_from_payload("add", {"code": "wse.server.rp.not-registered"})
    assert isinstance(error, RpcNotRegistered)
    assert error.rpc == "add"
    assert str(error) == "the other end has no procedure named 'add'"


def test_a_message_of_the_other_end_is_told() -> None:
    error = error_from_payload("add", {"code": "x.y", "message": "no\nsuch luck"})
    assert str(error) == "'add' failed at the other end: no such luck"


@pytest.mark.parametrize(
    ("payload", "code", "details"),
    [
        (None, "wse.server.rp.failed", {}),
        ({}, "wse.server.rp.failed", {}),
        ({"code": None}, "wse.server.rp.failed", {}),
        ({"code": ""}, "wse.server.rp.failed", {}),
        ({"code": 17}, "wse.server.rp.failed", {}),
        ({"code": "a.b", "details": None}, "a.b", {}),
        ({"code": "a.b", "details": "text"}, "a.b", {"details": "text"}),
        ({"code": "a.b", "details": [1]}, "a.b", {"details": [1]}),
        ({"code": "a.b", "details": {"k": 1}, "more": 2}, "a.b", {"k": 1, "more": 2}),
        ({"code": "a.b", "details": {"k": 1}, "k": 2}, "a.b", {"k": 1}),
        ("text", "wse.server.rp.failed", {"answer": "text"}),
        (["text"], "wse.server.rp.failed", {"answer": ["text"]}),
        (0, "wse.server.rp.failed", {"answer": 0}),
        ({"code": "a.b", "message": 5}, "a.b", {}),
        (
            {"code": "a.b", "details": {"origin": {"stack": "at f"}, "payload": {"a": 1}}},
            "a.b",
            {"origin": {"stack": "at f"}, "payload": {"a": 1}},
        ),
    ],
    ids=repr,
)
def test_the_caller_always_gets_its_error(payload: Any, code: str, details: Any) -> None:
    error = error_from_payload("add", payload)
    assert isinstance(error, RpcError)
    assert (error.rpc, error.code, error.details) == ("add", code, details)
    assert str(error)


# -- writing error answers


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def test_an_error_with_a_code_travels_with_code_and_details() -> None:
    exc = WseError("shop.sold-out", {"left": 0}, "sold out")
    assert payload_from_error("buy", exc, expose=False) == {
        "code": "shop.sold-out",
        "details": {"left": 0, "rpc": "buy"},
    }
    assert exc.details == {"left": 0}


def test_keys_already_in_the_details_win() -> None:
    exc = WseError("shop.sold-out", {"rpc": "mine"})
    assert payload_from_error("buy", exc, expose=False)["details"] == {"rpc": "mine"}


def test_any_other_exception_travels_as_execution_failed() -> None:
    assert payload_from_error("add", raised(KeyError("a")), expose=False) == {
        "code": "wse.server.rp.failed",
        "message": "'a'",
        "details": {"origin": {"name": "KeyError", "message": "'a'"}, "rpc": "add"},
    }


def test_an_exception_without_text_is_an_unexpected_error() -> None:
    answer = payload_from_error("add", ValueError(), expose=False)
    assert answer["message"] == "Unexpected error"
    assert answer["details"]["origin"] == {"name": "ValueError", "message": ""}


@pytest.mark.parametrize("exc", [ValueError("x"), WseError("a.b"), RpcTimeout("inner")], ids=repr)
def test_stacks_and_payloads_stay_here_unless_exposed(exc: Exception) -> None:
    hidden = json.dumps(payload_from_error("add", raised(exc), expose=False, call_payload="secret"))
    assert "Traceback" not in hidden
    assert "test_rpc" not in hidden
    assert "secret" not in hidden
    shown = payload_from_error("add", raised(exc), expose=True, call_payload="secret")
    assert "Traceback" in shown["details"]["origin"]["stack"]
    assert shown["details"]["payload"] == "secret"


def test_exposing_does_not_overwrite_details_of_the_users_own() -> None:
    exc = WseError("a.b", {"origin": "the moon", "payload": "mine"})
    answer = payload_from_error("add", exc, expose=True, call_payload="other")
    assert answer["details"] == {"origin": "the moon", "payload": "mine", "rpc": "add"}
