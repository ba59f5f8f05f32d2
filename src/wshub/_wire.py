"""
What travels between workers: one line of JSON, then the payload as it is.

    {"v":1,"audience":"room","name":"lobby"}
    {"text":"hi"}

Fields that are left out have the default of most messages. A reader ignores fields that it does
not know, so later versions may add some; what an old reader must not misunderstand gets a new
`kind`, or a new `v`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args

from wshub.exceptions import HubError, check_close_code
from wshub.messages import Audience, Dismissal, DismissalAudience, Outgoing, Publication

if TYPE_CHECKING:
    from wshub.events import SkipReason
    from wshub.messages import Envelope

__all__ = ("Probe", "Unreadable", "read_envelope", "write_envelope")

VERSION = 1

FEW = 8
SHORT = 512
"""Ids that are excluded, and bytes of a header, up to which a header is kept for the next time."""

_AUDIENCES: tuple[Audience, ...] = get_args(Audience)
_DISMISSAL_AUDIENCES: tuple[DismissalAudience, ...] = get_args(DismissalAudience)

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

T = TypeVar("T")
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Probe:
    """
    A message that a worker sends to itself, to see whether it is heard.

    Attributes:
        id: Tells one probe from others.
    """

    id: str


class Unreadable(HubError):
    """
    Raised for what is no envelope, or not one of this version.

    Attributes:
        reason: Which of the two.
        problem: What is wrong with it.
    """

    def __init__(self, reason: SkipReason, problem: str) -> None:
        super().__init__(reason, problem)
        self.reason: SkipReason = reason
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.reason}: {self.problem}"


class _Header(NamedTuple):
    """What a publication has beside its payload."""

    audience: Audience
    name: str
    binary: bool
    exclude: frozenset[str]


def write_envelope(envelope: Envelope | Probe) -> bytes:
    """Return `envelope` as it travels."""
    if isinstance(envelope, Publication):
        data, exclude = envelope.message.data, envelope.exclude
        binary = isinstance(data, bytes)
        write = _write_header if len(exclude) <= FEW else _write_header.__wrapped__
        head = write(_Header(envelope.audience, envelope.name, binary, exclude))
        return head + (data if isinstance(data, bytes) else data.encode())
    header: dict[str, object] = {"v": VERSION}
    if isinstance(envelope, Dismissal):
        header |= {"kind": "dismissal", "audience": envelope.audience, "name": envelope.name}
        header |= {"code": envelope.code, "reason": envelope.reason}
    else:
        header |= {"kind": "probe", "id": envelope.id}
    return _to_json(header).encode() + b"\n"


def read_envelope(data: bytes) -> Envelope | Probe:
    """
    Return what `write_envelope()` was given.

    Raises:
        Unreadable: It is something else, or of a later version.
    """
    head, _, payload = data.partition(b"\n")
    read = _read_header if len(head) <= SHORT else _read_header.__wrapped__
    header = read(head)
    if not isinstance(header, _Header):
        return header
    message = _read_payload(payload, binary=header.binary)
    return Publication(header.audience, header.name, message, header.exclude)


# Rooms and senders say more than one thing, so most headers were seen before.


@lru_cache(maxsize=1024)
def _write_header(header: _Header) -> bytes:
    fields: dict[str, object] = {"v": VERSION, "audience": header.audience}
    if header.name:
        fields["name"] = header.name
    if header.exclude:
        fields["exclude"] = list(header.exclude)
    if header.binary:
        fields["binary"] = True
    return _to_json(fields).encode() + b"\n"


@lru_cache(maxsize=1024)
def _read_header(head: bytes) -> _Header | Dismissal | Probe:
    try:
        header: object = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise Unreadable("malformed", f"its first line is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise Unreadable("malformed", "its first line is no JSON object")
    fields = _Fields(cast("dict[str, Any]", header))
    version = fields.take("v", int)
    if version != VERSION:
        raise Unreadable("unknown", f"version {version}; this worker reads {VERSION}")
    match fields.take("kind", str, "publication"):
        case "publication":
            return _Header(
                fields.choose("audience", _AUDIENCES),
                fields.take("name", str, ""),
                fields.take("binary", bool, default=False),
                frozenset(map(str, fields.take("exclude", list, []))),
            )
        case "dismissal":
            return Dismissal(
                fields.choose("audience", _DISMISSAL_AUDIENCES),
                fields.take("name", str),
                _check_code(fields.take("code", int)),
                fields.take("reason", str),
            )
        case "probe":
            return Probe(fields.take("id", str))
        case kind:
            raise Unreadable("unknown", f"kind {kind!r}")


class _Fields:
    """The fields of a header, each with the type that it must have."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._header = header

    def take(self, name: str, kind: type[ValueT], default: ValueT | None = None) -> ValueT:
        value = self._header.get(name, default)
        if type(value) is not kind:
            raise Unreadable("malformed", f"its {name} is no {kind.__name__}")
        return value

    def choose(self, name: str, choices: tuple[T, ...]) -> T:
        value = self._header.get(name)
        for choice in choices:
            if value == choice:
                return choice
        raise Unreadable("unknown", f"{name} {value!r}")


def _check_code(code: int) -> int:
    try:
        return check_close_code(code)
    except ValueError as error:
        raise Unreadable("malformed", str(error)) from error


def _read_payload(payload: bytes, *, binary: bool) -> Outgoing:
    try:
        return Outgoing(payload if binary else payload.decode())
    except UnicodeDecodeError as error:
        raise Unreadable("malformed", f"its text is not UTF-8: {error}") from error
