"""What travels between workers: every envelope arrives as it was, and nothing else is taken."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wshub._wire import Probe, Unreadable, read_envelope, write_envelope
from wshub.messages import Dismissal, Envelope, Outgoing, Publication

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PAYLOADS = st.builds(Outgoing, TEXT | st.binary())
NAMES = TEXT.filter(bool)
PUBLICATIONS = st.one_of(
    st.builds(Publication, st.just("everyone"), st.just(""), PAYLOADS, st.frozensets(TEXT)),
    st.builds(Publication, st.sampled_from(["room", "user"]), NAMES, PAYLOADS, st.frozensets(TEXT)),
)
DISMISSALS = st.builds(Dismissal, st.just("user"), NAMES, st.integers(3000, 4999), TEXT)


def comparable(envelope: Envelope | Probe) -> object:
    """What makes two envelopes equal."""
    if isinstance(envelope, Publication):
        message = envelope.message
        parts = (envelope.audience, envelope.name, envelope.exclude)
        return (*parts, message.data, message.size, message.event)
    return envelope


@given(PUBLICATIONS | DISMISSALS | st.builds(Probe, TEXT))
def test_what_is_written_is_read_again(envelope: Envelope | Probe) -> None:
    """Text stays text, and bytes bytes, whatever is in them."""
    assert comparable(read_envelope(write_envelope(envelope))) == comparable(envelope)


def test_a_message_to_a_room_is_two_lines() -> None:
    """Short, to be read by people, and as it is since the first version."""
    written = write_envelope(Publication("room", "lobby", Outgoing('{"text": "hi"}')))
    assert written == b'{"v":1,"audience":"room","name":"lobby"}\n{"text": "hi"}'


@pytest.mark.parametrize(
    "data",
    [
        b'{"v":1,"audience":"room","name":"tea","position":["epoch",7],"later":{}}\nhi',
        b'{"v": 1, "kind": "publication", "audience": "room", "name": "tea", "exclude": []}\nhi',
    ],
)
def test_fields_of_later_versions_are_ignored(data: bytes) -> None:
    """A worker of this version goes on while others are newer."""
    envelope = read_envelope(data)
    assert isinstance(envelope, Publication)
    assert comparable(envelope) == comparable(Publication("room", "tea", Outgoing("hi")))


@pytest.mark.parametrize(
    "header",
    [
        {"v": 2, "audience": "room", "name": "tea"},
        {"v": 0},
        {"v": 1, "kind": "presence"},
        {"v": 1, "audience": "planet", "name": "earth"},
        {"v": 1, "audience": None},
        {"v": 1},
        {"v": 1, "kind": "dismissal", "audience": "room", "name": "tea", "code": 4000},
    ],
)
def test_what_a_later_version_may_know_is_told_apart(header: dict[str, object]) -> None:
    """Another version, kind or audience is unknown, not malformed."""
    with pytest.raises(Unreadable, match=r"^unknown: ") as unreadable:
        read_envelope(json.dumps(header).encode() + b"\nhi")
    assert unreadable.value.reason == "unknown"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x80\x04\x95pickled",
        b"[1]\nhi",
        b"[" * 100_000,
        b"null",
        b"{}\nhi",
        b'{"v":"1"}\nhi',
        b'{"v":true}\nhi',
        b'{"v":1,"kind":[]}\nhi',
        b'{"v":1,"audience":"room","name":7}\nhi',
        b'{"v":1,"audience":"room","name":"tea","binary":1}\nhi',
        b'{"v":1,"audience":"room","name":"tea","exclude":"id"}\nhi',
        b'{"v":1,"audience":"room","name":"tea"}\n\xff',
        b'{"v":1,"kind":"dismissal","audience":"user","name":"ann","code":1006,"reason":""}\n',
        b'{"v":1,"kind":"dismissal","audience":"user","name":"ann","code":"1000"}\n',
        b'{"v":1,"kind":"probe"}\n',
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    """Whoever else publishes on our channels does no harm."""
    with pytest.raises(Unreadable, match=r"^malformed: ") as unreadable:
        read_envelope(data)
    assert unreadable.value.reason == "malformed"


@given(st.binary() | st.binary().map(lambda data: b'{"v":1,"audience":"everyone"}' + data))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing else can be raised."""
    with suppress(Unreadable):
        read_envelope(data)
