"""What errors say: one printable line, no secrets of URLs, names for codes and exceptions."""

import copy
import json
import pickle
import time
from typing import Any

import pytest

from wse_tornado import ErrorCode, Reason, RpcDisconnected, RpcFailed, RpcNotRegistered, WseError
from wse_tornado.errors import CloseCode, RpcError, mask_urls, printable
from wse_tornado.rpc import error_from_payload, payload_from_error
from wse_tornado.stats import Counters

# -- what a peer wrote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ї, \U0001f600", "plain text, ї, \U0001f600"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202eright to left", "\\u202eright to left"),
        ("a\u2028b\x85c\x7f", "a\\u2028b\\x85c\\x7f"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut_before_and_after_escaping() -> None:
    assert printable("x" * 200) == "x" * 200
    assert printable("x" * 201) == "x" * 199 + "…"
    assert printable("abcdef", 3) == "ab…"
    assert printable("\x1b" * 200, 10) == "\\x1b\\x1b\\…"
    assert len(printable("\x1b" * 10_000_000)) == 200


@pytest.mark.parametrize("how", [str, repr])
def test_no_error_prints_control_characters_of_a_peer(how: Any) -> None:
    answer = {"code": "a\x1b[2J", "message": "b\x1b[2J\u202e", "details": {"k\x1b": "\x1b\x9b"}}
    for error in (
        error_from_payload("add\x1b", answer),
        WseError("a\x1b", {"k\x1b": "\x1b"}),
        WseError("a\x1b", {"k": 1}, "c\x1b[2J"),
    ):
        assert how(error).isprintable()


@pytest.mark.parametrize("how", [str, repr])
def test_no_error_prints_more_than_a_thousand_characters(how: Any) -> None:
    error = error_from_payload(
        "add", {"code": "a.b", "message": "x" * 10**6, "details": {"k": "y" * 10**6}}
    )
    assert len(how(error)) <= 1000
    assert len(error.message) > 10**6
    assert len(error.details["k"]) == 10**6


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_details_that_cannot_be_printed_do_not_hide_the_error() -> None:
    error = WseError("a.b", {"k": Unprintable()})
    assert str(error) == "a.b (k=<unprintable Unprintable>)"
    assert "a.b" in repr(error)


# -- URLs


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ws://host:80/path", "ws://host:80/path"),
        ("wss://user:pass@host/ws?token=abc", "wss://***@host/ws?token=***"),
        (
            "cannot reach ws://u@h/?a=1&b&c=: refused",
            "cannot reach ws://***@h/?a=***&***&c=***: refused",
        ),
        ("see (ws://h/?k=v).", "see (ws://h/?k=***)."),
        ("'ws://h/?k=v', 'ws://i/'", "'ws://h/?k=***', 'ws://i/'"),
        ("redis://:p/w#d@host/0", "redis://***@host/0"),
        ("ws://u:p'w\"@host/?t=a'b", "ws://***@host/?t=***"),
        ("ws://h/#secret", "ws://h/#***"),
        ("WS://u:p@h", "WS://***@h"),
        ("ws://[::1]:42/x?y=1, and ws://b/?", "ws://[::1]:42/x?y=***, and ws://b/?"),
        ("user@example.com", "user@example.com"),
    ],
)
def test_credentials_and_query_values_of_urls_are_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked


@pytest.mark.parametrize(
    "text",
    ["a." * 50_000, "ws://" + ":" * 100_000, "ws://h?" + ":" * 100_000 + "a", "ws://a:" * 15_000],
    ids=["dots", "colons", "query", "schemes"],
)
def test_masking_takes_linear_time(text: str) -> None:
    begun = time.process_time()
    mask_urls(text)
    assert time.process_time() - begun < 5  # quadratic: minutes


# -- names


@pytest.mark.parametrize("member", [*ErrorCode, *Reason, *CloseCode])
def test_a_member_is_shown_by_its_name_and_printed_as_its_value(member: Any) -> None:
    assert repr(member) == f"{type(member).__name__}.{member.name}"
    assert str(member) == str(member.value)
    assert f"{member}" == str(member.value)
    assert json.dumps([member]) == json.dumps([member.value])
    assert pickle.loads(pickle.dumps(member)) is member


def test_close_codes_are_those_of_the_rfc_and_of_the_wire() -> None:
    assert [int(code) for code in CloseCode] == [
        *(1000, 1001, 1002, 1003, 1005, 1006, 1007),
        *(1008, 1009, 1010, 1011, 1012, 1013, 1014, 4000),
    ]
    assert CloseCode(1012) is CloseCode.SERVICE_RESTART
    assert CloseCode.JUMP == 4000
    assert f"{CloseCode.JUMP:>6}" == "  4000"


def test_no_reason_is_the_empty_one_and_counts_by_its_code() -> None:
    assert Reason.NO_REASON == ""
    counters = Counters()
    counters.closed(1006, Reason.NO_REASON)
    counters.closed(1006, "")
    counters.closed(1000, Reason.BY_CLIENT)
    assert counters.closings == {"1006": 2, "1000 wse.by-client": 1}


def test_a_call_s_error_has_the_procedure_s_name() -> None:
    error = RpcDisconnected(name="add", sent=False)
    assert (error.name, error.rpc, error.sent) == ("add", "add", False)
    assert RpcFailed("add", "a.b").name == "add"


# -- subclasses of users


class NoSuper(WseError):
    """Its constructor does not call that of `WseError`."""

    def __init__(self, left: int) -> None:
        self.left = left


class NoSuperRpc(RpcError):
    def __init__(self) -> None:
        pass


class NoDetails(WseError):
    def __init__(self) -> None:
        super().__init__("shop.sold-out")
        self.details = None  # type: ignore[assignment]


def test_a_subclass_whose_constructor_does_not_call_super_is_a_whole_error() -> None:
    error = NoSuper(3)
    assert (error.code, error.details, error.left) == ("wse.client.ws-error", {}, 3)
    assert str(error) == "wse.client.ws-error"
    assert repr(error) == "NoSuper(code='wse.client.ws-error', details={})"
    assert payload_from_error("buy", error, expose=True)["code"] == "wse.client.ws-error"
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), again.left, str(again)) == (NoSuper, 3, str(error))
    assert (NoSuperRpc().name, NoSuperRpc().code) == ("", "wse.server.rp.failed")


def test_a_subclass_without_details_is_answered_with_empty_ones() -> None:
    answer = payload_from_error("buy", NoDetails(), expose=False)
    assert answer == {"code": "shop.sold-out", "details": {"rpc": "buy"}}
    assert NoDetails().to_json()["details"] == {}
    assert str(NoDetails()) == "shop.sold-out"
    assert repr(NoDetails())


def test_to_json_is_what_an_http_answer_needs() -> None:
    error = WseError(ErrorCode.NOT_AUTHORIZED, {"k": 1}, "no\nentry")
    assert error.to_json() == {
        "code": "wse.not-authorized",
        "message": "no entry",
        "details": {"k": 1},
    }
    assert json.dumps(error.to_json())


# -- errors that travel


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (KeyError("b"), "'add' failed at the other end: KeyError: 'b'"),
        (ValueError(), "'add' failed at the other end: ValueError"),
        (
            ZeroDivisionError("division by zero"),
            "'add' failed at the other end: ZeroDivisionError: division by zero",
        ),
        (WseError("shop.sold-out"), "'add' failed at the other end: shop.sold-out"),
    ],
    ids=repr,
)
def test_a_failed_call_names_the_exception_of_the_other_end(exc: Exception, text: str) -> None:
    answer = json.loads(json.dumps(payload_from_error("add", exc, expose=False)))
    assert str(error_from_payload("add", answer)) == text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"message": "KeyError: 'b'", "details": {"origin": {"name": "KeyError"}}},
            "KeyError: 'b'",
        ),
        ({"message": "m", "details": {"origin": "the moon"}}, "m"),
        ({"message": "m", "details": {"origin": {"name": 5}}}, "m"),
        ({"message": "m", "details": {"origin": {"name": ""}}}, "m"),
        ({"details": {"origin": {"name": "TypeError"}}}, "TypeError"),
    ],
    ids=repr,
)
def test_an_odd_origin_does_no_harm(answer: Any, text: str) -> None:
    assert str(error_from_payload("add", answer)) == f"'add' failed at the other end: {text}"


@pytest.mark.parametrize(
    "exc", [RpcNotRegistered("inner"), WseError(ErrorCode.RP_NOT_REGISTERED)], ids=repr
)
def test_a_nested_call_of_nothing_does_not_say_that_the_outer_procedure_is_missing(
    exc: WseError,
) -> None:
    answer = payload_from_error("outer", exc, expose=False)
    assert answer["code"] == "wse.server.rp.failed"
    assert answer["details"]["rpc"] == "outer"
    assert answer["details"]["origin"]["name"] == type(exc).__name__
    error = error_from_payload("outer", json.loads(json.dumps(answer)))
    assert isinstance(error, RpcFailed)
    assert not isinstance(error, LookupError)
