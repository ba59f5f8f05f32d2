"""What travels: an outgoing message, encoded once, and the envelopes around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from wshub._frames import encode_frame
from wshub.exceptions import MessageNotEncodable

if TYPE_CHECKING:
    from starlette.types import Message as AsgiEvent

    from wshub._frames import FrameForm

__all__ = (
    "Audience",
    "Dismissal",
    "DismissalAudience",
    "Envelope",
    "Outgoing",
    "Publication",
    "encode",
    "size_of",
)

Audience = Literal["everyone", "room", "user"]
"""Whom a publication is for."""

DismissalAudience = Literal["user", "newcomer", "session"]
"""Whose connections a dismissal closes; newcomers are those of a user that are on their way in."""

_ANYTHING: TypeAdapter[object] = TypeAdapter(
    object,
    config=ConfigDict(ser_json_inf_nan="constants"),  # for json.dumps to refuse
)


class Outgoing:
    """
    One message on its way out, encoded once and shared by all its recipients.

    Attributes:
        data: The payload: text of a text frame or bytes of a binary frame.
        size: Bytes of the payload on the wire, before framing and compression.
        event: The ASGI `websocket.send` event. Shared: never change it.
    """

    __slots__ = ("_frames", "data", "event", "size")

    def __init__(self, data: str | bytes) -> None:
        self.data: Final[str | bytes] = data
        kind = "text" if isinstance(data, str) else "bytes"
        self.event: AsgiEvent = {"type": "websocket.send", kind: data}
        try:
            self.size: int = size_of(data)
        except UnicodeEncodeError as error:
            # A server would raise this for each recipient in turn; here it reaches the sender.
            raise MessageNotEncodable("str", str(error)) from error
        self._frames: dict[FrameForm, bytes] = {}

    def frame(self, form: FrameForm) -> bytes:
        """Return the message as one frame, made when it is first asked for in this form."""
        frame = self._frames.get(form)
        if frame is None:
            frame = self._frames[form] = encode_frame(self.data, form)
        return frame


def size_of(data: str | bytes) -> int:
    """Return the bytes of a payload on the wire, UTF-8 for text, before framing."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())


@dataclass(frozen=True, slots=True)
class Publication:
    """
    A message for an audience.

    Attributes:
        audience: Whom it is for.
        name: The room or the user; empty for everyone.
        message: The message, encoded.
        exclude: Ids of connections that do not get it.
    """

    audience: Audience
    name: str
    message: Outgoing
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Dismissal:
    """
    An order to close all connections of an audience.

    Attributes:
        audience: Whose connections: those of a user, which are open or on their way in, or those
            of a session.
        name: The user, or the hash of the session.
        code: Close code.
        reason: Close reason.
    """

    audience: DismissalAudience
    name: str
    code: int
    reason: str


Envelope = Publication | Dismissal
"""What a backend carries from `publish` to `deliver`, unchanged."""


def encode(message: object) -> Outgoing:
    """
    Encode `message` once: str → text, bytes-like → binary, anything else → JSON text.

    Pydantic models use their own serialiser, also inside lists and dicts; dates, UUIDs, enums and
    dataclasses become JSON as they do in a model.

    Raises:
        MessageNotEncodable: JSON cannot express it (NaN and infinity included, RFC 8259 §6), or
            the text holds lone surrogates, which UTF-8 cannot.
    """
    if isinstance(message, Outgoing):
        return message
    if isinstance(message, str):
        return Outgoing(message)
    if isinstance(message, bytes | bytearray):
        return Outgoing(bytes(message))
    if isinstance(message, memoryview):
        return Outgoing(message.tobytes())
    try:
        if isinstance(message, BaseModel):
            return Outgoing(message.model_dump_json())
        return Outgoing(_to_json(message))
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageNotEncodable(type(message).__name__, str(error)) from error


def _to_json(message: object) -> str:
    jsonable = _ANYTHING.dump_python(message, mode="json")
    return json.dumps(jsonable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
