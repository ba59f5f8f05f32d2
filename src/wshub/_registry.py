"""Who is connected, as which user, in which rooms. Synchronous; no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from wshub._outbox import Outbox
    from wshub.connection import Connection
    from wshub.messages import Audience

    _Members = dict[Connection, Outbox]
    _Index = dict[str, _Members]

__all__ = ("Registry",)


class Interest(Protocol):
    """Is told which rooms and users this process has connections of."""

    def subscribe(self, audience: Audience, name: str) -> None:
        """Take note of the first connection of an audience."""
        ...

    def unsubscribe(self, audience: Audience, name: str) -> None:
        """Take note that the last connection of an audience has gone."""
        ...


class Registry:
    """
    Three indexes that always agree. Every change is O(1), `discard` O(rooms of the connection).

    They keep each connection's outbox, so that a broadcast need not ask for it. A room exists
    while it has members, a user while there is a connection: `interest` is told of both, at once.
    """

    __slots__ = ("_connections", "_interest", "_memberships", "_rooms", "_users")

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self._connections: _Members = {}
        self._rooms: dict[str, _Members] = {}
        self._users: dict[str, _Members] = {}
        self._memberships: dict[Connection, set[str]] = {}

    @property
    def connection_count(self) -> int:
        """Connections that are registered."""
        return len(self._connections)

    @property
    def room_count(self) -> int:
        """Rooms that have members."""
        return len(self._rooms)

    @property
    def user_count(self) -> int:
        """Users that have connections."""
        return len(self._users)

    def add(self, connection: Connection) -> None:
        """Register `connection`."""
        self._connections[connection] = connection.outbox
        if connection.user is not None:
            self._add("user", self._users, connection.user, connection)

    def discard(self, connection: Connection) -> bool:
        """Take `connection` out of every index; return whether it was registered."""
        if connection not in self._connections:
            return False
        del self._connections[connection]
        if connection.user is not None:
            self._discard("user", self._users, connection.user, connection)
        for room in self._memberships.pop(connection, ()):
            self._discard("room", self._rooms, room, connection)
        return True

    def join(self, connection: Connection, room: str) -> None:
        """Put a registered `connection` into `room`; one that is not registered stays outside."""
        if connection in self._connections:
            self._add("room", self._rooms, room, connection)
            self._memberships.setdefault(connection, set()).add(room)

    def leave(self, connection: Connection, room: str) -> None:
        """Take `connection` out of `room`; not being in it is fine."""
        rooms = self._memberships.get(connection)
        if rooms is not None and room in rooms:
            rooms.discard(room)
            self._discard("room", self._rooms, room, connection)

    def rooms_of(self, connection: Connection) -> Collection[str]:
        """Return the names of the rooms that `connection` is in; it changes with them."""
        return self._memberships.get(connection, ())

    def find(self, audience: Audience, name: str = "") -> list[Connection]:
        """Return a snapshot of an audience, in the order of joining."""
        return list(self._find(audience, name))

    def find_outboxes(
        self, audience: Audience, name: str, exclude: Collection[str]
    ) -> list[Outbox]:
        """Return the outboxes of an audience, without those of the connections with these ids."""
        members = self._find(audience, name)
        if not exclude:
            return list(members.values())
        return [
            outbox for connection, outbox in members.items() if connection.id not in exclude
        ]

    def _find(self, audience: Audience, name: str) -> _Members:
        if audience == "everyone":
            return self._connections
        index = self._rooms if audience == "room" else self._users
        return index.get(name, {})

    def _add(self, audience: Audience, index: _Index, name: str, connection: Connection) -> None:
        members = index.get(name)
        if members is None:
            index[name] = {connection: connection.outbox}
            self._interest.subscribe(audience, name)
        else:
            members[connection] = connection.outbox

    def _discard(
        self, audience: Audience, index: _Index, name: str, connection: Connection
    ) -> None:
        members = index[name]
        del members[connection]
        if not members:
            del index[name]
            self._interest.unsubscribe(audience, name)
