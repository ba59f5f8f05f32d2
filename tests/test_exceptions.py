"""Close codes, reasons, rejections and the texts of errors."""

from __future__ import annotations

import pytest
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from wshub import exceptions
from wshub.exceptions import (
    CloseCode,
    ConnectionClosed,
    HubError,
    InvalidRoomName,
    InvalidUserId,
    Rejection,
    check_close_code,
    cut_reason,
)

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]
NOT_SENDABLE = [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65536]


@pytest.mark.parametrize("code", [*SENDABLE, 3000, 3003, 3008, 3999, 4000, 4999])
def test_a_code_for_the_wire_is_accepted(code: int) -> None:
    """RFC 6455 §7.4: the registered codes that a frame may carry, 3000-3999 and 4000-4999."""
    assert check_close_code(code) == code
    assert Rejection(code).code == code


@pytest.mark.parametrize("code", NOT_SENDABLE)
def test_a_code_that_is_not_for_the_wire_is_refused(code: int) -> None:
    """RFC 6455 §7.4.1: reserved and unassigned codes are a ValueError that says what would do."""
    with pytest.raises(ValueError, match=f"{code} cannot be sent"):
        check_close_code(code)
    with pytest.raises(ValueError, match="3000-4999"):
        Rejection(code)


def test_close_codes_know_how_they_are_used() -> None:
    """Codes that are only reported locally cannot be sent; clients come back after some."""
    assert {code for code in CloseCode if not code.can_send} == {1005, 1006, 1015}
    assert CloseCode.SERVICE_RESTART.should_reconnect
    assert not CloseCode.POLICY_VIOLATION.should_reconnect


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", ""),
        ("short", "short"),
        ("x" * 200, "x" * 123),
        ("ö" * 100, "ö" * 61),
        ("🦊" * 40, "🦊" * 30),
        ("\ud800", "?"),
    ],
)
def test_a_reason_is_cut_on_a_character_boundary(reason: str, kept: str) -> None:
    """RFC 6455 §5.5: at most 123 bytes of valid UTF-8 are left for the reason."""
    assert cut_reason(reason) == kept
    assert Rejection(1008, reason).reason == kept


@pytest.mark.parametrize(
    ("helper", "code"),
    [
        ("unsupported_data", 1003),
        ("invalid_payload", 1007),
        ("policy_violation", 1008),
        ("message_too_big", 1009),
        ("internal_error", 1011),
        ("try_again_later", 1013),
        ("too_many_requests", 1013),
        ("unauthorized", 3000),
        ("forbidden", 3003),
    ],
)
def test_helpers_build_starlettes_own_exception(helper: str, code: int) -> None:
    """Each is a WebSocketException with the code of its name and a reason that may be given."""
    build = getattr(exceptions, helper)
    assert isinstance(build(), WebSocketException)
    assert build().code == code
    assert build().reason
    assert build("because").reason == "because"


def test_errors_compose_their_text() -> None:
    """Each error says what happened and what to do about it."""
    assert str(ConnectionClosed(1000, "", "peer")) == "connection closed by the peer with 1000"
    assert str(InvalidRoomName("it is empty")) == "invalid room name: it is empty"
    assert str(InvalidUserId("it is empty")) == "invalid user id: it is empty"
    assert "connect(websocket)" in str(exceptions.NotConnected())
    assert str(exceptions.AlreadyConnected("twice")) == "twice"


def test_one_except_clause_catches_what_it_should() -> None:
    """Code for Starlette catches a closed connection; a bad name refuses the client."""
    assert issubclass(ConnectionClosed, WebSocketDisconnect)
    assert issubclass(InvalidRoomName, WebSocketException)
    assert InvalidRoomName("x").code == 1008
    for name in exceptions.__all__:
        error = getattr(exceptions, name)
        if isinstance(error, type) and issubclass(error, Exception):
            assert issubclass(error, HubError) or error is Rejection
