"""wshub, with its default options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, WebSocket

from benchmarks.servers.asgi import serve
from wshub import Connection, ConnectionManager
from wshub.backends import backend_from_url

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

    from wshub import OutboxOptions

__all__ = ("Server",)


class Server:
    """
    A manager behind a handler that only reads.

    `/ws/NAME` joins the room of that name; on `/chat`, or `/chat/NAME`, what one says is for all
    in a room.
    """

    def __init__(self, broker: str | None = None, *, outbox: OutboxOptions | None = None) -> None:
        backend = None if broker is None else backend_from_url(broker)
        self._manager = ConnectionManager(backend=backend, outbox=outbox)
        self._connections: list[Connection] = []
        self._app = FastAPI(lifespan=self._manager.lifespan)
        self._app.add_api_websocket_route("/ws", self._handle)
        self._app.add_api_websocket_route("/ws/{room}", self._handle_in_room)
        self._app.add_api_websocket_route("/chat", self._chat)
        self._app.add_api_websocket_route("/chat/{room}", self._chat)

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return self._manager.statistics().connections

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to the members of `room`, or to everyone."""
        await self._manager.broadcast(message, room=room)

    @property
    def connections(self) -> list[Connection]:
        """The connections that are open, in the order of accepting."""
        return [connection for connection in self._connections if connection.closed is None]

    async def join(self, connection: Connection, room: str) -> None:
        """Put one of the connections into `room`."""
        await connection.join(room)

    async def leave(self, connection: Connection, room: str) -> None:
        """Take one of the connections out of `room`."""
        await connection.leave(room)

    def forget(self) -> None:
        """Drop what `connections` returned."""
        self._connections.clear()

    async def _handle(self, websocket: WebSocket) -> None:
        async with self._manager.connection(websocket) as connection:
            self._connections.append(connection)
            async for _ in connection:
                pass

    async def _handle_in_room(self, websocket: WebSocket, room: str) -> None:
        async with self._manager.connection(websocket, rooms=[room]) as connection:
            async for _ in connection:
                pass

    async def _chat(self, websocket: WebSocket, room: str = "chat") -> None:
        async with self._manager.connection(websocket, rooms=[room]) as connection:
            async for message in connection:
                await self._manager.broadcast(message, room=room)
