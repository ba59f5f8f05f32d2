"""What a server offers to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

__all__ = ("RoomServer", "Server")


class Server(Protocol):
    """
    Takes WebSocket connections and sends to all of them.

    A module of `benchmarks.servers` has a class of this shape, called `Server`. One that is no
    ASGI application implements `serve` by itself. One that can be one of several workers may be
    made with the URL of the broker between them.
    """

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        ...

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections on `listener` during the block; `ws` names an implementation."""
        ...

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to the members of `room`, or to everyone."""
        ...


@runtime_checkable
class RoomServer(Server, Protocol):
    """A server whose connections can be in many rooms."""

    @property
    def connections(self) -> Sequence[Any]:
        """The connections that are open, in the order of accepting."""
        ...

    async def join(self, connection: Any, room: str) -> None:
        """Put one of the connections into `room`."""
        ...

    async def leave(self, connection: Any, room: str) -> None:
        """Take one of the connections out of `room`."""
        ...

    def forget(self) -> None:
        """Drop what `connections` returned: only the benchmark needed it."""
        ...
