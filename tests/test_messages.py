"""How messages become frames."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid

import pytest
from pydantic import BaseModel

from wshub import MessageNotEncodable
from wshub.messages import Outgoing, encode


class Point(BaseModel):
    """A model with a field that JSON has no type for."""

    x: int
    when: dt.date = dt.date(2026, 1, 2)


@dataclasses.dataclass
class Pair:
    """A dataclass."""

    left: int
    right: int


@pytest.mark.parametrize(
    ("message", "data", "size"),
    [
        ("plain", "plain", 5),
        ("zwölf 🦊", "zwölf 🦊", 11),
        (b"\x00\xff", b"\x00\xff", 2),
        (bytearray(b"ab"), b"ab", 2),
        (memoryview(b"ab"), b"ab", 2),
        ({"a": [1, None, True]}, '{"a":[1,null,true]}', 19),
        (None, "null", 4),
        (Point(x=1), '{"x":1,"when":"2026-01-02"}', 27),
        ([Point(x=1)], '[{"x":1,"when":"2026-01-02"}]', 29),
        (Pair(1, 2), '{"left":1,"right":2}', 20),
        ({uuid.UUID(int=1): 2}, '{"00000000-0000-0000-0000-000000000001":2}', 42),
        ({"id": uuid.UUID(int=1)}, '{"id":"00000000-0000-0000-0000-000000000001"}', 45),
    ],
)
def test_a_message_is_encoded_by_its_type(message: object, data: str | bytes, size: int) -> None:
    """Str is text, bytes-like is binary, anything else is JSON text; the size is in bytes."""
    outgoing = encode(message)
    kind = "text" if isinstance(data, str) else "bytes"
    assert outgoing.data == data
    assert outgoing.size == size
    assert outgoing.event == {"type": "websocket.send", kind: data}
    assert encode(outgoing) is outgoing


@pytest.mark.parametrize(
    "message", [object(), {1, object()}, float("nan"), [float("inf")], "\ud800", ["\udfff"]]
)
def test_what_cannot_be_encoded_says_so(message: object) -> None:
    """The error names the type and what would work."""
    with pytest.raises(MessageNotEncodable, match="send str, bytes, a pydantic model") as caught:
        encode(message)
    assert caught.value.type_name in {type(message).__name__, "str"}


def test_a_loop_in_the_data_cannot_be_encoded() -> None:
    """A list that holds itself ends in the same error."""
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(MessageNotEncodable):
        encode(loop)


def test_a_changed_buffer_does_not_change_the_message() -> None:
    """Bytes are copied: a message may wait in outboxes while its buffer is used again."""
    buffer = bytearray(b"before")
    outgoing = encode(buffer)
    buffer[:] = b"after!"
    assert outgoing.data == b"before"
    assert isinstance(outgoing, Outgoing)
