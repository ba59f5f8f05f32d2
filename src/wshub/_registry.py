"""Who is connected, as which user, in which rooms. Synchronous; no input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from wshub.auth.principal import hash_session

if TYPE_CHECKING:
    from collections.abc import Collection

    from wshub._outbox import Outbox
    from wshub.auth.principal import Principal
    from wshub.connection import Connection
    from wshub.messages import Audience, DismissalAudience

    _Index = dict[str, dict[Connection, Outbox]]

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
    Four indexes that always agree. Every change is O(1), `discard` O(rooms of the connection).

    They keep the outbox of each connection, for broadcasts to find them in one go. A room exists
    while it has members, a user while there is a connection: `interest` is told of both, at once.
    Sessions need none: who is to leave is told to every process.
    """

    __slots__ = ("_connections", "_interest", "_memberships", "_rooms", "_sessions", "_users")

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self._connections: dict[Connection, Outbox] = {}
        self._rooms: _Index = {}
        self._users: _Index = {}
        self._sessions: _Index = {}
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
        self._change_session(connection, None, session_of(connection.principal))

    def discard(self, connection: Connection) -> bool:
        """Take `connection` out of every index; return whether it was registered."""
        if connection not in self._connections:
            return False
        del self._connections[connection]
        if connection.user is not None:
            self._discard("user", self._users, connection.user, connection)
        self._change_session(connection, session_of(connection.principal), None)
        for room in self._memberships.pop(connection, ()):
            self._discard("room", self._rooms, room, connection)
        return True

    def change_session(self, connection: Connection, principal: Principal) -> None:
        """Index a registered `connection` by the session of `principal`, which it has not yet."""
        if connection in self._connections:
            before = session_of(connection.principal)
            self._change_session(connection, before, session_of(principal))

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

    def find(self, audience: Audience | DismissalAudience, name: str = "") -> list[Connection]:
        """Return a snapshot of an audience, in the order of joining."""
        return list(self._find(audience, name))

    def find_outboxes(
        self, audience: Audience, name: str, exclude: Collection[str]
    ) -> list[Outbox]:
        """Return the outboxes of an audience, without those of the connections with these ids."""
        members = self._find(audience, name)
        if not exclude:
            return list(members.values())
        return [outbox for connection, outbox in members.items() if connection.id not in exclude]

    def _find(self, audience: Audience | DismissalAudience, name: str) -> dict[Connection, Outbox]:
        if audience == "everyone":
            return self._connections
        indexes = {"room": self._rooms, "user": self._users, "session": self._sessions}
        return indexes.get(audience, {}).get(name, {})

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

    def _change_session(
        self, connection: Connection, before: str | None, after: str | None
    ) -> None:
        if before is not None:
            members = self._sessions[before]
            del members[connection]
            if not members:
                del self._sessions[before]
        if after is not None:
            self._sessions.setdefault(after, {})[connection] = connection.outbox


def session_of(principal: Principal | None) -> str | None:
    """Return the name under which the session of `principal` is indexed, or None."""
    if principal is None or principal.session_id is None:
        return None
    return hash_session(principal.session_id)
