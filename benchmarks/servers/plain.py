"""A FastAPI endpoint without any manager: accepts, and receives until the client leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)


class Server:
    """Counts its connections and does nothing else with them."""

    def __init__(self) -> None:
        self._count = 0
        self._app = FastAPI()
        self._app.add_api_websocket_route("/ws", self._handle)

    @property
    def connection_count(self) -> int:
        """Connections that are open."""
        return self._count

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Not offered: there is nothing that knows the connections."""
        raise NotImplementedError

    async def _handle(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self._count += 1
        try:
            await self.receive(websocket)
        finally:
            self._count -= 1

    async def receive(self, websocket: WebSocket) -> None:
        """Receive until the client leaves."""
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
