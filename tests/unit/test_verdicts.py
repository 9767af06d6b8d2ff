"""Admission: what identify returned, falsy ids, and the time-out, without a socket."""

from typing import Any

import pytest

from wse_tornado import AuthRequest, ErrorCode, Reason
from wse_tornado.admission import Admission, Admit, Ignore, Reject, State


class Door:
    def __init__(self, **options: Any) -> None:
        self.verdicts: list[Any] = []
        self.admission = Admission(
            challenges=options.pop("challenges", False),
            make_auth=lambda identity, meta: AuthRequest(
                identity, meta, decide=lambda auth, verdict: self.verdicts.append(verdict)
            ),
            **options,
        )

    def validating(self) -> AuthRequest:
        self.admission.receive("hi", {"identity": "key"})
        assert self.admission.auth is not None
        return self.admission.auth


@pytest.mark.parametrize("cid", [0, 0.0, "", b"", ()], ids=repr)
def test_accepting_a_falsy_id_refuses_and_explains_itself(cid: Any) -> None:
    door = Door()
    door.validating().accept(cid)
    (verdict,) = door.verdicts
    assert isinstance(verdict, Reject)
    assert verdict.reason == Reason.NOT_AUTHORIZED
    assert verdict.error is not None
    assert f"{cid!r} is falsy and not an id" in str(verdict.error)


@pytest.mark.parametrize("cid", [None, False], ids=repr)
def test_accepting_none_or_false_is_a_plain_refusal(cid: Any) -> None:
    door = Door()
    door.validating().accept(cid)
    assert door.verdicts == [Reject(Reason.NOT_AUTHORIZED)]


def test_a_result_of_identify_is_an_id() -> None:
    door = Door()
    door.validating()
    assert isinstance(door.admission.identified("ann"), Ignore)
    assert door.verdicts == [Admit("ann", None)]


@pytest.mark.parametrize("result", [True, ["ann"]], ids=repr)
def test_a_result_of_identify_that_is_no_id_is_told_and_refused(result: Any) -> None:
    door = Door()
    door.validating()
    action = door.admission.identified(result)
    assert isinstance(action, Reject)
    assert action.reason == Reason.NOT_AUTHORIZED
    assert action.error is not None
    assert door.admission.state is State.REFUSED


def test_a_result_beside_a_verdict_is_ignored() -> None:
    door = Door()
    door.validating().accept("ann")
    assert isinstance(door.admission.identified("bob"), Ignore)
    assert door.verdicts == [Admit("ann", None)]


def test_identify_that_returned_without_a_verdict_is_told_what_to_do_at_the_time_out() -> None:
    door = Door()
    door.validating()
    assert isinstance(door.admission.identified(None), Ignore)
    action = door.admission.timed_out(20.0)
    assert (action.code, action.reason) == (1013, Reason.AUTH_TIMEOUT)
    assert action.error is not None
    assert action.error.code == ErrorCode.AUTH_TIMEOUT
    assert action.error.details == {"timeout": 20.0}
    assert str(action.error) == (
        "identify returned without a verdict, and none came within 20 s: call auth.accept(id) or "
        "auth.refuse(), or return the id"
    )


def test_a_handler_that_has_not_returned_is_told_as_that() -> None:
    door = Door()
    door.validating()
    action = door.admission.timed_out(0.5)
    assert action.error is not None
    assert "has not returned within 0.5 s" in str(action.error)
    assert door.admission.state is State.REFUSED


@pytest.mark.parametrize("challenged", [False, True])
def test_a_silent_peer_is_no_error_of_the_server(challenged: bool) -> None:
    door = Door(challenges=True)
    if challenged:
        door.validating()
        door.admission.challenged("quest")
    assert door.admission.timed_out(1.0) == Reject(Reason.AUTH_TIMEOUT, None, 1013)


def test_a_verdict_after_the_time_out_changes_nothing() -> None:
    door = Door()
    auth = door.validating()
    door.admission.timed_out(1.0)
    auth.accept("ann")
    assert isinstance(door.admission.verdict(door.verdicts[0]), Ignore)
