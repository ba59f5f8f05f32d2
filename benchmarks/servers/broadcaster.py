"""encode/broadcaster as its documentation sets it up, with Starlette on uvicorn."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from starlette.websockets import WebSocket

__all__ = ("Server",)

CHANNEL = "chat"


class Server:
    """Each connection subscribes to the channel in its path, and publishes to it."""

    def __init__(self, broker: str = "memory://") -> None:
        self._count = 0
        self._broadcast = Broadcast(broker)
        route = WebSocketRoute("/chat/{channel}", self._chat)
        self._app = Starlette(routes=[route], lifespan=self._connected)

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return self._count

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to the connections of one channel."""
        await self._broadcast.publish(room or CHANNEL, message)

    @asynccontextmanager
    async def _connected(self, _: Starlette) -> AsyncIterator[None]:
        async with self._broadcast:
            yield

    async def _chat(self, websocket: WebSocket) -> None:
        channel: str = websocket.path_params["channel"]
        await websocket.accept()
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                async for message in websocket.iter_text():
                    await self._broadcast.publish(channel, message)
                tasks.cancel_scope.cancel()

            tasks.start_soon(receive)
            await self._send(websocket, channel)

    async def _send(self, websocket: WebSocket, channel: str) -> None:
        async with self._broadcast.subscribe(channel) as subscriber:
            self._count += 1
            try:
                async for event in subscriber:
                    await websocket.send_text(event.message)
            finally:
                self._count -= 1
