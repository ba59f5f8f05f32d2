"""Connection manager for FastAPI and Starlette WebSockets."""

from wshub._outbox import OutboxOptions
from wshub._tenure import Revalidation
from wshub._watch import Heartbeat
from wshub.connection import Connection
from wshub.events import (
    ConnectionEnded,
    ConnectionOpened,
    Event,
    Hook,
    LimitReached,
    MessagesDropped,
    Statistics,
)
from wshub.exceptions import (
    AccessDenied,
    AlreadyConnected,
    BackendUnavailable,
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    HubError,
    InvalidName,
    InvalidRoomName,
    InvalidUserId,
    LimitExceeded,
    MessageNotEncodable,
    NotConnected,
    OutboxFull,
    PayloadTooLarge,
    Rejection,
)
from wshub.limits import Limits
from wshub.manager import ConnectionManager
from wshub.rooms import Room

__all__ = (
    "AccessDenied",
    "AlreadyConnected",
    "BackendUnavailable",
    "CloseCode",
    "ConcurrentReceive",
    "Connection",
    "ConnectionClosed",
    "ConnectionEnded",
    "ConnectionManager",
    "ConnectionOpened",
    "Event",
    "Heartbeat",
    "Hook",
    "HubError",
    "InvalidName",
    "InvalidRoomName",
    "InvalidUserId",
    "LimitExceeded",
    "LimitReached",
    "Limits",
    "MessageNotEncodable",
    "MessagesDropped",
    "NotConnected",
    "OutboxFull",
    "OutboxOptions",
    "PayloadTooLarge",
    "Rejection",
    "Revalidation",
    "Room",
    "Statistics",
)
