"""What fits into PostgreSQL's notifications and identifiers, and what takes its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wshub.backends._postgres_notification import (
    Spilled,
    quote_identifier,
    read_notification,
    shorten,
    write_notification,
    write_reference,
)

LIMIT = 7999


@given(st.text(max_size=80), st.text(max_size=80))
def test_identifiers_are_short_and_of_one_name_each(one: str, other: str) -> None:
    """Whatever the name, PostgreSQL takes all of it, and tells it from others."""
    for name in (one, other):
        assert len(shorten(name)) <= 63
        assert shorten(name).isascii()
    assert (shorten(one) == shorten(other)) == (one == other)


def test_a_short_name_stays_readable() -> None:
    """Up to 62 ASCII characters it is the identifier; beyond them the beginning can be read."""
    assert shorten("wshub:room:lobby") == "wshub:room:lobby"
    assert shorten("x" * 62) == "x" * 62
    assert shorten("wshub:room:" + "x" * 52).startswith("wshub:room:xxx")
    assert shorten("wshub:room:ä").startswith(":" * 18 + "wshub:room:?:")
    assert shorten("x" * 63) != shorten("x" * 62 + "y")


def test_no_name_is_the_short_form_of_another() -> None:
    """Also if somebody names a room like the digest of another one."""
    long = shorten("x" * 100)
    assert shorten(long) != long


def test_quotes_do_not_end_an_identifier() -> None:
    """They are doubled."""
    assert quote_identifier('a"; DROP TABLE b') == b'"a""; DROP TABLE b"'


@given(st.binary(max_size=200), st.integers(0, 127))
def test_payloads_come_back(payload: bytes, number: int) -> None:
    """Any bytes, as text that needs no encoding of the database."""
    text = write_notification(number, payload)
    assert text is not None
    assert text.isascii()
    assert "\0" not in text
    assert read_notification(text.encode()) == payload


@given(st.integers(LIMIT - 20, LIMIT + 20), st.sampled_from([b"x", b"\0", b"\xe4"]))
def test_what_does_not_fit_is_not_cut_off(size: int, byte: bytes) -> None:
    """A payload gets as much room as there is; none gets more."""
    room = LIMIT - len("t99:") if byte == b"x" else (LIMIT - len("b99:")) // 4 * 3
    payload = byte * (room + size - LIMIT)
    text = write_notification(99, payload)
    assert (text is not None) == (size <= LIMIT)
    if text is not None:
        assert len(text) <= LIMIT
        assert read_notification(text.encode()) == payload


def test_payloads_that_are_alike_differ() -> None:
    """PostgreSQL would deliver only one of them, were they in one transaction."""
    assert write_notification(0, b"hi") != write_notification(1, b"hi")


def test_a_reference_leads_to_its_row() -> None:
    """By the key, which is as long as a UUID."""
    assert read_notification(write_reference(7, b"k" * 16).encode()) == Spilled(b"k" * 16)


@pytest.mark.parametrize(
    "text", [b"", b"hi", b"x0:hi", b"t:hi", b"b0:a", b"b0:*", b"s0:", b"s0:zz", b"s0:abcd", b"\xff"]
)
def test_what_is_none_of_ours_is_left_as_it_is(text: bytes) -> None:
    """It is for others to see that it is no envelope."""
    assert read_notification(text) == text
