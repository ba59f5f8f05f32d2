"""`websockets.broadcast()` as its documentation sets it up: a set of connections, a handler."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection, broadcast, serve

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

__all__ = ("Server",)


class Server:
    """The server of `websockets`; on the path `/chat` what one says is for all."""

    def __init__(self) -> None:
        self._connections: set[ServerConnection] = set()

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return len(self._connections)

    @asynccontextmanager
    async def serve(self, listener: socket.socket, ws: str) -> AsyncIterator[None]:
        """Accept connections during the block; there is no other implementation."""
        del ws
        async with serve(self._handle, sock=listener, ping_interval=None):
            yield

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to everyone."""
        assert room is None
        broadcast(self._connections, message)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self._connections.add(connection)
        try:
            if connection.request.path == "/chat":
                async for message in connection:
                    broadcast(self._connections, message)
            else:
                await connection.wait_closed()
        finally:
            self._connections.remove(connection)
