"""
Close codes, rejections and the error tree.

Exception
├── HubError
│   ├── ConnectionClosed          (also a `WebSocketDisconnect`)
│   ├── OutboxFull
│   ├── NotConnected
│   ├── AlreadyConnected
│   ├── ConcurrentReceive
│   ├── MessageNotEncodable
│   ├── InvalidName               (also a `WebSocketException`, 1008)
│   │   ├── InvalidRoomName
│   │   └── InvalidUserId
│   ├── LimitExceeded             (also a `Rejection`)
│   ├── AccessDenied              (also a `Rejection`)
│   ├── OtherUser                 (also a `Rejection`, and a `ValueError`)
│   ├── BackendUnavailable
│   │   └── BackendRefused
│   ├── PayloadTooLarge
│   └── UnsupportedServer         (also an `ImportError`)
└── WebSocketException            (FastAPI's, which is Starlette's)
    └── Rejection                 (what the helpers below build)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from wshub._backend_errors import BackendRefused, BackendUnavailable, PayloadTooLarge
from wshub._close_codes import CloseCode, check_close_code, cut_reason
from wshub._hub_error import HubError
from wshub._rejection import (
    Rejection,
    forbidden,
    internal_error,
    invalid_payload,
    message_too_big,
    policy_violation,
    too_many_requests,
    try_again_later,
    unauthorized,
    unsupported_data,
)

if TYPE_CHECKING:
    from wshub.events import LimitName

__all__ = (
    "AccessDenied",
    "AlreadyConnected",
    "BackendRefused",
    "BackendUnavailable",
    "CloseCode",
    "ClosedBy",
    "ConcurrentReceive",
    "ConnectionClosed",
    "HubError",
    "InvalidName",
    "InvalidRoomName",
    "InvalidUserId",
    "LimitExceeded",
    "MessageNotEncodable",
    "NotConnected",
    "OtherUser",
    "OutboxFull",
    "PayloadTooLarge",
    "Rejection",
    "RoomAction",
    "UnsupportedServer",
    "check_close_code",
    "cut_reason",
    "forbidden",
    "internal_error",
    "invalid_payload",
    "message_too_big",
    "policy_violation",
    "too_many_requests",
    "try_again_later",
    "unauthorized",
    "unsupported_data",
)

ClosedBy = Literal["peer", "hub", "server"]
"""Who ended a connection: the client, this library or the app through it, the ASGI server."""


RoomAction = Literal["join", "publish"]
"""What somebody may, or may not, do in a room."""


class ConnectionClosed(HubError, WebSocketDisconnect):
    """
    Raised by every method of a connection that is over.

    It is a `WebSocketDisconnect` too, so that code written for Starlette catches it.

    Attributes:
        code: Close code; 1006 when the peer vanished without one.
        reason: Close reason, often empty.
        by: Who ended it: `"peer"`, `"hub"` or `"server"`.
    """

    def __init__(self, code: int, reason: str, by: ClosedBy) -> None:
        super().__init__(code, reason)
        self.by: ClosedBy = by

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"connection closed by the {self.by} with {self.code}{why}"


class OutboxFull(HubError):
    """
    Raised by `Connection.send_nowait()` when the peer reads too slowly.

    The message was not queued; the connection stays open.

    Attributes:
        connection_id: Whose outbox is full.
        messages: Messages waiting in it.
        bytes: Bytes waiting in it.
    """

    def __init__(self, connection_id: str, messages: int, size: int) -> None:
        super().__init__(connection_id, messages, size)
        self.connection_id = connection_id
        self.messages = messages
        self.bytes = size

    def __str__(self) -> str:
        return (
            f"outbox of {self.connection_id} is full ({self.messages} messages, "
            f"{self.bytes} bytes wait); await send(), or raise max_messages or max_bytes "
            "of OutboxOptions"
        )


class NotConnected(HubError):
    """Raised when a WebSocket that no manager accepted is used through one."""

    def __str__(self) -> str:
        return (
            "this WebSocket is not registered; call `await manager.connect(websocket)` or use "
            "`async with manager.connection(websocket)` first"
        )


class AlreadyConnected(HubError):
    """
    Raised when a WebSocket is registered a second time, or accepted before with other options.

    Attributes:
        problem: What was asked for twice.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ConcurrentReceive(HubError):
    """
    Raised when a second task receives from a connection while a first one waits.

    Attributes:
        connection_id: The connection that is being read already.
    """

    def __init__(self, connection_id: str) -> None:
        super().__init__(connection_id)
        self.connection_id = connection_id

    def __str__(self) -> str:
        return (
            f"another task is already receiving from {self.connection_id}; "
            "receive in one task and hand the messages on"
        )


class MessageNotEncodable(HubError):
    """
    Raised when a message can become neither a frame nor JSON. Nothing was sent to anyone.

    Attributes:
        type_name: The type of the message.
        problem: What the encoder said.
    """

    def __init__(self, type_name: str, problem: str) -> None:
        super().__init__(type_name, problem)
        self.type_name = type_name
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"cannot encode a message of type {self.type_name}: {self.problem}; "
            "send str, bytes, a pydantic model, or something that JSON can express"
        )


class InvalidName(HubError, WebSocketException):
    """
    Raised for a name that is empty or too long, or has control characters.

    It is also a `WebSocketException` with 1008: such names come from clients, and where nobody
    catches it the client that sent the name is refused.

    Attributes:
        kind: What was named: `"room name"` or `"user id"`.
        problem: What is wrong with it.
    """

    kind = "name"

    def __init__(self, problem: str) -> None:
        super().__init__(int(CloseCode.POLICY_VIOLATION), f"invalid {self.kind}: {problem}")
        self.problem = problem

    def __str__(self) -> str:
        return self.reason


class InvalidRoomName(InvalidName):
    """Raised for a room name that is empty or too long, or has control characters."""

    kind = "room name"


class InvalidUserId(InvalidName):
    """Raised for a user id that is empty or too long, or has control characters."""

    kind = "user id"


class UnsupportedServer(HubError, ImportError):
    """
    Raised on import of a part of wshub that does not fit the server that is installed.

    Attributes:
        server: Name of the package.
        found: Its version.
        needed: What would do.
    """

    def __init__(self, server: str, found: str, needed: str) -> None:
        super().__init__(server, found, needed)
        self.server = server
        self.found = found
        self.needed = needed

    def __str__(self) -> str:
        return (
            f"{self.server} {self.found} does not fit, {self.needed} would; "
            f"or go without `--ws wshub.uvicorn:FanoutProtocol`, only slower"
        )


_LIMIT_REASONS: dict[LimitName, tuple[int, str, int | None]] = {
    "connections": (CloseCode.TRY_AGAIN_LATER, "too many connections", 503),
    "connections_per_user": (CloseCode.TRY_AGAIN_LATER, "too many connections of this user", 429),
    "connections_per_address": (
        CloseCode.TRY_AGAIN_LATER,
        "too many connections from this address",
        429,
    ),
    "rooms_per_connection": (CloseCode.POLICY_VIOLATION, "too many rooms", None),
}


class LimitExceeded(HubError, Rejection):
    """
    Raised for a handshake or a join that is over one of the manager's `Limits`.

    It is also a `Rejection`: where nobody catches it, the client is refused with 1013 (HTTP 503
    or 429 before accept), for a join with 1008.

    Attributes:
        limit: Name of the field of `Limits`.
        maximum: Its value.
        retry_after: Seconds after which the client is told to come back, or None.
    """

    def __init__(self, limit: LimitName, maximum: float, retry_after: float | None = None) -> None:
        code, reason, status = _LIMIT_REASONS[limit]
        super().__init__(code, reason, status=status, retry_after=retry_after)
        self.limit: LimitName = limit
        self.maximum = maximum

    def __str__(self) -> str:
        return f"{self.reason}: {self.limit} of Limits is {self.maximum}; raise it, or close some"


class AccessDenied(HubError, Rejection):
    """
    Raised for what somebody may not do in a room. Also a `Rejection`: 3003, HTTP 403.

    Attributes:
        action: What was not allowed.
        room: Name of the room.
    """

    def __init__(self, action: RoomAction, room: str) -> None:
        super().__init__(CloseCode.FORBIDDEN, f"not allowed to {action}")
        self.action: RoomAction = action
        self.room = room

    def __str__(self) -> str:
        return (
            f"not allowed to {self.action} in room {self.room!a}; "
            f"authorize_{self.action} of the manager has to return True"
        )


class OtherUser(HubError, Rejection, ValueError):
    """
    Raised by `Connection.refresh()` for a principal of somebody else. Also a `Rejection`: 3003.

    Attributes:
        connection_id: The connection, which stays as it is.
    """

    def __init__(self, connection_id: str) -> None:
        super().__init__(CloseCode.FORBIDDEN, "the credential of another user")
        self.connection_id = connection_id

    def __str__(self) -> str:
        return f"{self.connection_id} is refreshed for the user that it belongs to, and no other"
