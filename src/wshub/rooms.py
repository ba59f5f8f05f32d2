"""A named group of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.websockets import WebSocket

    from wshub.connection import Connection
    from wshub.messages import Audience

__all__ = ("Room",)


class _Hub(Protocol):
    """What a room needs of the manager it belongs to."""

    def members(self, room: str) -> list[Connection]:
        """Return the members of `room` in this process."""
        ...

    async def publish(
        self,
        audience: Audience,
        name: str,
        message: object,
        exclude: Iterable[Connection | WebSocket | str],
    ) -> None:
        """Send `message` to an audience."""
        ...

    async def authorize_sender(self, sender: Connection, room: str) -> None:
        """Raise unless `sender` may publish in `room`, and is still connected."""
        ...


class Room:
    """
    A room by its name: made by `ConnectionManager.room()`, cheap, holds nothing itself.

    A room exists while it has members; sending to one without members reaches nobody.

    Attributes:
        name: Name of the room.
    """

    __slots__ = ("_hub", "name")

    def __init__(self, name: str, hub: _Hub) -> None:
        self.name: str = name
        self._hub = hub

    def __repr__(self) -> str:
        return f"<Room {self.name!r}>"

    @property
    def members(self) -> list[Connection]:
        """A snapshot of the members that are connected to this process, in order of joining."""
        return self._hub.members(self.name)

    async def join(self, connection: Connection) -> None:
        """
        Put `connection` into the room; its being in already is fine.

        Raises:
            LimitExceeded: It is in `Limits.rooms_per_connection` rooms already.
            ConnectionClosed: The connection is over.
        """
        await connection.join(self.name)

    async def leave(self, connection: Connection) -> None:
        """Take `connection` out of the room; its not being in is fine."""
        await connection.leave(self.name)

    async def broadcast(
        self,
        message: object,
        *,
        exclude: Iterable[Connection | WebSocket | str] = (),
        sender: Connection | None = None,
    ) -> None:
        """Send `message` to all members; the same as `manager.broadcast(message, room=name)`."""
        if sender is not None:
            await self._hub.authorize_sender(sender, self.name)
        await self._hub.publish("room", self.name, message, exclude)
