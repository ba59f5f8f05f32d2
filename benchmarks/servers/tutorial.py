"""The connection manager of FastAPI's WebSockets tutorial, as it stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)


class ConnectionManager:
    """The tutorial's class."""

    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        """Accept and register."""
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        """Forget."""
        self.active_connections.remove(websocket)

    async def broadcast(self, message: str) -> None:
        """Send to one after the other."""
        for connection in self.active_connections:
            await connection.send_text(message)


class Server:
    """The tutorial's manager behind a handler that only reads."""

    def __init__(self) -> None:
        self._manager = ConnectionManager()
        self._app = FastAPI()
        self._app.add_api_websocket_route("/ws", self._handle)

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return len(self._manager.active_connections)

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to everyone; the tutorial has no rooms."""
        assert room is None
        await self._manager.broadcast(message)

    async def _handle(self, websocket: WebSocket) -> None:
        await self._manager.connect(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            self._manager.disconnect(websocket)
