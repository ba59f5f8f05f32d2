"""What a manager tells its app about: figures of `statistics()`, and events for hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from wshub.connection import Connection
    from wshub.exceptions import ConnectionClosed

__all__ = (
    "BackendLost",
    "BackendRegained",
    "ConnectionEnded",
    "ConnectionOpened",
    "DropReason",
    "Event",
    "EvictionReason",
    "Hook",
    "LimitAction",
    "LimitName",
    "LimitReached",
    "MessagesDropped",
    "SkipReason",
    "Statistics",
)

DropReason = Literal["overflow", "closed"]
"""Why a message for a peer was dropped: its outbox was full, or it left before its turn came."""

EvictionReason = Literal["overflow", "send_timeout", "write_failed"]
"""Why a peer was evicted: full outbox, not writable for too long, or the write itself failed."""

LimitName = Literal[
    "connections",
    "connections_per_user",
    "connections_per_address",
    "rooms_per_connection",
    "message_bytes",
    "messages_per_second",
    "bytes_per_second",
]
"""A field of `Limits`."""

LimitAction = Literal["refused", "warned", "closed"]
"""
What happened to who reached a limit: a handshake or a join was refused, a peer whose messages
come too fast was warned and they still arrived, or its connection was closed.
"""

SkipReason = Literal["malformed", "unknown"]
"""
Why something that came from the backend was skipped: it is no envelope at all, or one of a kind
or a version that a later wshub may know.
"""


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """
    A connection was accepted and registered. It joins its rooms after that.

    Attributes:
        connection: Which.
    """

    connection: Connection


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """
    A connection is over; it has left the registry and its rooms.

    What its outbox still held is dropped, or sent before the close frame, after that.

    Attributes:
        connection: Which.
        closed: How it ended: `code`, `reason` and `by`.
        evicted: Why its peer was cut off, or None if it was not.
    """

    connection: Connection
    closed: ConnectionClosed
    evicted: EvictionReason | None


@dataclass(frozen=True, slots=True)
class MessagesDropped:
    """
    Messages for a peer will never be sent.

    Attributes:
        connection: Whose.
        reason: Why.
        count: Messages.
    """

    connection: Connection
    reason: DropReason
    count: int


@dataclass(frozen=True, slots=True)
class LimitReached:
    """
    A client reached one of the manager's `Limits`.

    Attributes:
        limit: Which.
        action: What happened.
        connection: Whose; None for a handshake.
        user: Id of the user, if there is one.
        address: Address of the client as it is counted (IPv6 as its /64 network), where
            connections are counted by it; else None.
    """

    limit: LimitName
    action: LimitAction
    connection: Connection | None
    user: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class BackendLost:
    """
    The backend cannot reach other workers any more; it goes on trying.

    Attributes:
        backend: Name of the backend.
        problem: What it ran into.
    """

    backend: str
    problem: str


@dataclass(frozen=True, slots=True)
class BackendRegained:
    """
    The backend reaches other workers again, with all its subscriptions.

    Attributes:
        backend: Name of the backend.
        gap: Seconds since the last sign that messages from other workers arrived here. What was
            sent meanwhile may not have reached the connections of this worker.
    """

    backend: str
    gap: float


Event: TypeAlias = (
    ConnectionOpened
    | ConnectionEnded
    | MessagesDropped
    | LimitReached
    | BackendLost
    | BackendRegained
)
"""What a hook is called with. Later versions add members: ignore those you do not know."""


class Hook(Protocol):
    """
    Is told of events: any function of one argument will do.

    Called at once, in the event loop, in the order of the events: a hook must not block, and
    must not wait; it may call `send_nowait()`, or put the event into a queue of its own. What it
    raises is logged and hurts nobody.
    """

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""
        ...


class Statistics(NamedTuple):
    """
    Figures of one manager in this process.

    `sent + queued + sum(dropped.values())` is the number of messages ever handed to an outbox.

    Attributes:
        connections: Registered now.
        rooms: With at least one member now.
        users: With at least one connection now.
        queued: Messages that wait in outboxes now, for clients that do not read. Those that
            `wshub.uvicorn.FanoutProtocol` collects for the end of this turn are not counted yet.
        opened: Connections ever registered.
        received: Messages ever read from peers, without answers to heartbeats.
        unread: Messages read from peers that no handler took before the connection ended.
        published: Broadcasts and messages to users ever handed to the backend.
        sent: Messages ever handed to the server, one for each recipient, with heartbeats.
        dropped: Messages never sent, by reason.
        evicted: Peers that were cut off, by reason.
        limited: Times that a client was refused, warned or closed, by limit.
        skipped: What came from the backend and could not be read, by reason.
    """

    connections: int
    rooms: int
    users: int
    queued: int
    opened: int
    received: int
    unread: int
    published: int
    sent: int
    dropped: dict[DropReason, int]
    evicted: dict[EvictionReason, int]
    limited: dict[LimitName, int]
    skipped: dict[SkipReason, int]
