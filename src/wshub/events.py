"""Figures: what a manager counts and what `statistics()` shows of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ("DropReason", "EvictionReason", "Statistics")

DropReason = Literal["overflow", "closed"]
"""Why a message for a peer was dropped: its outbox was full, or it left before its turn came."""

EvictionReason = Literal["overflow", "send_timeout", "write_failed"]
"""Why a peer was evicted: full outbox, not writable for too long, or the write itself failed."""


class Statistics(NamedTuple):
    """
    Figures of one manager in this process.

    `sent + queued + sum(dropped.values())` is the number of messages ever handed to an outbox.

    Attributes:
        connections: Registered now.
        rooms: With at least one member now.
        users: With at least one connection now.
        queued: Messages that wait in outboxes now.
        opened: Connections ever registered.
        received: Messages ever read from peers.
        unread: Messages read from peers that no handler took before the connection ended.
        published: Broadcasts and messages to users ever handed to the backend.
        sent: Messages ever handed to the server, one for each recipient.
        dropped: Messages never sent, by reason.
        evicted: Peers that were cut off, by reason.
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
