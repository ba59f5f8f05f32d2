"""What a manager's connections and rooms share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from wshub._counters import Counters
from wshub._names import check_room_name
from wshub._registry import Registry
from wshub._relay import Relay
from wshub._tasks import TaskOwner
from wshub.connection import Connection
from wshub.events import Statistics
from wshub.exceptions import HubError
from wshub.messages import Publication, encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.websockets import WebSocket

    from wshub._outbox import OutboxOptions
    from wshub.backends.base import Backend
    from wshub.messages import Audience

__all__ = ("Hub", "find_connection")

_SCOPE_KEY = "wshub.connection"


class Hub:
    """Ties registry, backend, relay, counters and tasks of one manager together."""

    def __init__(self, backend: Backend, outbox_options: OutboxOptions, read_ahead: int) -> None:
        self.backend = backend
        self.outbox_options = outbox_options
        self.read_ahead = read_ahead
        self.counters = Counters()
        self.tasks = TaskOwner()
        self.registry = Registry()
        self.stopping = False
        self.backend.attach(Relay(self.registry).deliver)

    def register(self, connection: Connection) -> None:
        """Make `connection` part of every audience that it belongs to."""
        self.counters.opened += 1
        connection.websocket.scope[_SCOPE_KEY] = connection
        self.registry.add(connection)

    def forget(self, connection: Connection) -> None:
        """Take `connection` out of the registry and all rooms. Idempotent."""
        self.registry.discard(connection)

    async def join(self, connection: Connection, room: str) -> None:
        """Put `connection` into `room`."""
        self.registry.join(connection, check_room_name(room))

    async def leave(self, connection: Connection, room: str) -> None:
        """Take `connection` out of `room`."""
        self.registry.leave(connection, room)

    def rooms_of(self, connection: Connection) -> frozenset[str]:
        """Return the rooms that `connection` is in."""
        return self.registry.rooms_of(connection)

    def members(self, room: str) -> list[Connection]:
        """Return the members of `room` in this process."""
        return self.registry.find("room", room)

    async def publish(
        self,
        audience: Audience,
        name: str,
        message: object,
        exclude: Iterable[Connection | WebSocket | str] = (),
    ) -> None:
        """Encode `message` once and hand it to the backend."""
        publication = Publication(audience, name, encode(message), _ids(exclude))
        self.counters.published += 1
        try:
            await self.backend.publish(publication)
        except HubError:
            self.counters.published -= 1
            raise

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        counters = self.counters
        return Statistics(
            connections=self.registry.connection_count,
            rooms=self.registry.room_count,
            users=self.registry.user_count,
            queued=counters.queued,
            opened=counters.opened,
            received=counters.received,
            unread=counters.unread,
            published=counters.published,
            sent=counters.sent,
            dropped=dict(counters.dropped),
            evicted=dict(counters.evicted),
        )


def find_connection(websocket: WebSocket) -> Connection | None:
    """Return the connection that a manager made of `websocket`, also when it is over."""
    connection: Connection | None = websocket.scope.get(_SCOPE_KEY)
    return connection


def _ids(exclude: Iterable[Connection | WebSocket | str]) -> frozenset[str]:
    # A WebSocket can be iterated over too, and would name the keys of its scope.
    if isinstance(exclude, str | HTTPConnection | Connection):
        raise TypeError("exclude is a collection; pass exclude=[connection]")
    return frozenset(filter(None, map(_id_of, exclude)))


def _id_of(excluded: Connection | WebSocket | str) -> str | None:
    """Return the id to exclude; None for a WebSocket that was never registered."""
    if isinstance(excluded, str):
        return excluded
    if isinstance(excluded, Connection):
        return excluded.id
    connection = find_connection(excluded)
    return None if connection is None else connection.id
