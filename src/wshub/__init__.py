"""Connection manager for FastAPI and Starlette WebSockets."""

from wshub._outbox import OutboxOptions
from wshub.connection import Connection
from wshub.events import Statistics
from wshub.exceptions import (
    AlreadyConnected,
    BackendUnavailable,
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    HubError,
    InvalidName,
    InvalidRoomName,
    InvalidUserId,
    MessageNotEncodable,
    NotConnected,
    OutboxFull,
    PayloadTooLarge,
    Rejection,
)
from wshub.manager import ConnectionManager
from wshub.rooms import Room

__all__ = (
    "AlreadyConnected",
    "BackendUnavailable",
    "CloseCode",
    "ConcurrentReceive",
    "Connection",
    "ConnectionClosed",
    "ConnectionManager",
    "HubError",
    "InvalidName",
    "InvalidRoomName",
    "InvalidUserId",
    "MessageNotEncodable",
    "NotConnected",
    "OutboxFull",
    "OutboxOptions",
    "PayloadTooLarge",
    "Rejection",
    "Room",
    "Statistics",
)
