"""admission.py: the states of docs/wire.md 3, without a socket."""

from typing import Any

import pytest

from wse_tornado import AuthRequest, Challenge, ErrorCode, ProtocolError, Reason
from wse_tornado.admission import (
    Admission,
    Admit,
    AskChallenge,
    AskIdentify,
    AskVerify,
    Ignore,
    Reject,
    SendQuest,
    State,
)

HELLO = {"identity": "key", "meta": {"device": "laptop"}}


class Door:
    """An admission and the verdicts that reach it."""

    def __init__(self, *, challenges: bool = False, verifies: bool = False) -> None:
        self.verdicts: list[Any] = []
        self.admission = Admission(
            challenges=challenges,
            verifies=verifies,
            make_auth=lambda identity, meta: AuthRequest(
                identity, meta, decide=lambda auth, verdict: self.verdicts.append(verdict)
            ),
        )

    def validating(self) -> AuthRequest:
        self.admission.receive("hi", HELLO)
        assert self.admission.auth is not None
        return self.admission.auth

    def challenged(self, quest: Any = "2+2") -> AuthRequest:
        auth = self.validating()
        assert self.admission.challenged(quest) == SendQuest(quest)
        return auth


# -- STRANGER


def test_hi_asks_identify() -> None:
    door = Door()
    action = door.admission.receive("hi", HELLO)
    assert isinstance(action, AskIdentify)
    assert (action.auth.identity, action.auth.meta) == ("key", {"device": "laptop"})
    assert action.auth.challenge is None
    assert door.admission.state is State.VALIDATING


@pytest.mark.parametrize("payload", [{"identity": "key"}, {"identity": "key", "meta": None}])
def test_absent_or_null_meta_is_an_empty_one(payload: Any) -> None:
    door = Door()
    action = door.admission.receive("hi", payload)
    assert isinstance(action, AskIdentify)
    assert action.auth.meta == {}


def test_an_absent_identity_is_none() -> None:
    action = Door().admission.receive("hi", {})
    assert isinstance(action, AskIdentify)
    assert action.auth.identity is None


@pytest.mark.parametrize(
    "role", ["challenge", "welcome", "call", "response", "response_error", None]
)
def test_a_stranger_that_says_anything_else_is_a_protocol_error(role: str | None) -> None:
    door = Door()
    assert door.admission.receive(role, HELLO) == Reject(Reason.PROTOCOL_ERR)
    assert door.admission.state is State.REFUSED


@pytest.mark.parametrize("payload", [None, "key", 5, ["key"], True], ids=repr)
def test_a_hi_whose_payload_is_no_object_is_told_and_refused(payload: Any) -> None:
    action = Door().admission.receive("hi", payload)
    assert isinstance(action, Reject)
    assert action.reason == Reason.PROTOCOL_ERR
    assert isinstance(action.error, ProtocolError)
    assert "its payload is not an object" in str(action.error)


@pytest.mark.parametrize("meta", ["", 0, False, [], "x", [1]], ids=repr)
def test_a_hi_whose_meta_is_no_object_is_told_and_refused(meta: Any) -> None:
    action = Door().admission.receive("hi", {"identity": "key", "meta": meta})
    assert isinstance(action, Reject)
    assert isinstance(action.error, ProtocolError)
    assert "its meta is not an object" in str(action.error)


# -- VALIDATING


@pytest.mark.parametrize("role", ["hi", "challenge", "response", None])
def test_anything_that_comes_while_validating_is_ignored(role: str | None) -> None:
    door = Door()
    auth = door.validating()
    assert isinstance(door.admission.receive(role, HELLO), Ignore)
    assert door.admission.state is State.VALIDATING
    assert door.admission.auth is auth


def test_accepting_admits() -> None:
    door = Door()
    auth = door.validating()
    auth.accept("user-1", {"message": "Welcome!"})
    assert door.verdicts == [Admit("user-1", {"message": "Welcome!"})]
    assert door.admission.verdict(door.verdicts[0]) == Admit("user-1", {"message": "Welcome!"})
    assert door.admission.state is State.VALID


def test_refusing_rejects() -> None:
    door = Door()
    door.validating().refuse()
    assert door.admission.verdict(door.verdicts[0]) == Reject(Reason.NOT_AUTHORIZED)
    assert door.admission.state is State.REFUSED


@pytest.mark.parametrize("cid", [None, "", 0, False, ()], ids=repr)
def test_accepting_a_falsy_id_rejects(cid: Any) -> None:
    door = Door()
    door.validating().accept(cid)
    assert [verdict.reason for verdict in door.verdicts] == [Reason.NOT_AUTHORIZED]


def test_an_id_that_is_not_hashable_is_the_callers_error_and_no_verdict() -> None:
    door = Door()
    auth = door.validating()
    with pytest.raises(TypeError, match="unhashable"):
        auth.accept(["user"])
    assert not auth.decided
    auth.accept("user")
    assert auth.decided


@pytest.mark.parametrize("first", ["accept", "refuse"])
@pytest.mark.parametrize("second", ["accept", "refuse"])
def test_the_first_verdict_counts(first: str, second: str) -> None:
    door = Door()
    auth = door.validating()
    arguments = {"accept": ("user",), "refuse": ()}
    getattr(auth, first)(*arguments[first])
    with pytest.raises(RuntimeError, match=f"{first[:6]}.* already; the first verdict counts"):
        getattr(auth, second)(*arguments[second])
    assert len(door.verdicts) == 1


def test_a_handler_that_raises_rejects_and_is_told() -> None:
    door = Door()
    door.validating()
    cause = KeyError("password")
    action = door.admission.failed(cause)
    assert isinstance(action, Reject)
    assert action.reason == Reason.NOT_AUTHORIZED
    assert action.error is not None
    assert action.error.code == ErrorCode.HANDLER_FAILED
    assert action.error.__cause__ is cause
    assert door.admission.state is State.REFUSED


def test_a_handler_that_raises_after_its_verdict_is_told_and_changes_nothing() -> None:
    door = Door()
    door.validating().accept("user")
    door.admission.verdict(door.verdicts[0])
    action = door.admission.failed(ValueError("too late"))
    assert isinstance(action, Reject)
    assert action.reason == ""
    assert action.error is not None
    assert door.admission.state is State.VALID


def test_a_verdict_after_the_end_changes_nothing() -> None:
    door = Door()
    door.validating()
    door.admission.failed(ValueError())
    assert isinstance(door.admission.verdict(Admit("user", None)), Ignore)
    assert door.admission.state is State.REFUSED


@pytest.mark.parametrize("end", ["valid", "refused"])
def test_nothing_reaches_a_door_that_is_decided(end: str) -> None:
    door = Door(challenges=True)
    auth = door.validating()
    auth.accept("user") if end == "valid" else auth.refuse()
    door.admission.verdict(door.verdicts[0])
    state = door.admission.state
    for role in ("hi", "challenge", None):
        assert isinstance(door.admission.receive(role, HELLO), Ignore)
    assert isinstance(door.admission.challenged("quest"), Ignore)
    assert isinstance(door.admission.verified(True), Ignore)
    assert door.admission.state is state


# -- CHALLENGED


def test_a_challenge_stands_before_identify() -> None:
    door = Door(challenges=True)
    action = door.admission.receive("hi", HELLO)
    assert isinstance(action, AskChallenge)
    assert door.admission.challenged({"nonce": "n"}) == SendQuest({"nonce": "n"})
    assert door.admission.state is State.CHALLENGED
    answer = door.admission.receive("challenge", "solution")
    assert isinstance(answer, AskIdentify)
    assert answer.auth.challenge == Challenge({"nonce": "n"}, "solution")
    assert door.admission.state is State.VALIDATING


@pytest.mark.parametrize("role", ["hi", "response", None])
def test_anything_else_in_mid_challenge_is_a_protocol_error(role: str | None) -> None:
    door = Door(challenges=True)
    auth = door.challenged()
    assert door.admission.receive(role, "4") == Reject(Reason.PROTOCOL_ERR)
    assert auth.challenge is None
    assert door.admission.state is State.REFUSED


def test_one_guess_on_each_challenge() -> None:
    door = Door(challenges=True)
    auth = door.challenged()
    door.admission.receive("challenge", "5")
    assert isinstance(door.admission.receive("challenge", "4"), Ignore)
    assert auth.challenge == Challenge("2+2", "5")


@pytest.mark.parametrize("quest", ["", 0, False, {}, []], ids=repr)
def test_a_falsy_quest_is_a_quest(quest: Any) -> None:
    door = Door(challenges=True)
    door.challenged(quest)
    assert door.admission.state is State.CHALLENGED


def test_no_quest_and_no_refusal_is_told_and_refused() -> None:
    door = Door(challenges=True)
    door.validating()
    action = door.admission.challenged(None)
    assert isinstance(action, Reject)
    assert action.reason == Reason.NOT_AUTHORIZED
    assert action.error is not None
    assert action.error.code == ErrorCode.INVALID_CRA_GENERATOR
    assert door.admission.state is State.REFUSED


def test_a_challenge_handler_may_refuse() -> None:
    door = Door(challenges=True)
    door.validating().refuse()
    assert isinstance(door.admission.challenged(None), Ignore)
    assert door.admission.verdict(door.verdicts[0]) == Reject(Reason.NOT_AUTHORIZED)


def test_a_challenge_that_verifies_is_asked_before_identify() -> None:
    door = Door(challenges=True, verifies=True)
    auth = door.challenged()
    assert door.admission.receive("challenge", "4") == AskVerify(auth)
    assert door.admission.verified(True) == AskIdentify(auth)
    assert door.admission.state is State.VALIDATING


def test_a_wrong_answer_never_reaches_identify() -> None:
    door = Door(challenges=True, verifies=True)
    door.challenged()
    door.admission.receive("challenge", "5")
    assert door.admission.verified(False) == Reject(Reason.NOT_AUTHORIZED)
    assert door.admission.state is State.REFUSED


# -- AuthRequest


def test_the_identity_stays_out_of_the_repr() -> None:
    auth = AuthRequest(
        "secret", {}, decide=lambda auth, verdict: None, conn_id="c1", remote_addr="10.0.0.1"
    )
    assert repr(auth) == "<AuthRequest conn_id='c1' from='10.0.0.1' open>"
    auth.refuse()
    assert repr(auth) == "<AuthRequest conn_id='c1' from='10.0.0.1' reject>"
