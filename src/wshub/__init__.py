"""Connection manager for FastAPI and Starlette WebSockets."""

from wshub._outbox import OutboxOptions
from wshub._tenure import Revalidation
from wshub._watch import Heartbeat
from wshub.backends.base import Health
from wshub.connection import Connection
from wshub.events import (
    BackendLost,
    BackendRegained,
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
    BackendRefused,
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
    OtherUser,
    OutboxFull,
    PayloadTooLarge,
    Rejection,
    UnsupportedServer,
)
from wshub.limits import Limits
from wshub.manager import ConnectionManager
from wshub.rooms import Room

__all__ = (
    "AccessDenied",
    "AlreadyConnected",
    "BackendLost",
    "BackendRefused",
    "BackendRegained",
    "BackendUnavailable",
    "CloseCode",
    "ConcurrentReceive",
    "Connection",
    "ConnectionClosed",
    "ConnectionEnded",
    "ConnectionManager",
    "ConnectionOpened",
    "Event",
    "Health",
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
    "OtherUser",
    "OutboxFull",
    "OutboxOptions",
    "PayloadTooLarge",
    "Rejection",
    "Revalidation",
    "Room",
    "Statistics",
    "UnsupportedServer",
)
