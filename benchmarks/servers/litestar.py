"""Litestar's channels as its documentation sets them up, on uvicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)

CHANNEL = "everyone"


class Server:
    """Each connection subscribes to one channel; on the path `/chat` it also publishes to it."""

    def __init__(self) -> None:
        self._count = 0
        self._channels = ChannelsPlugin(MemoryChannelsBackend(), channels=[CHANNEL])

        async def listen(socket: WebSocket) -> None:
            await self._handle(socket, speaks=False)

        async def chat(socket: WebSocket) -> None:
            await self._handle(socket, speaks=True)

        handlers = [websocket("/ws")(listen), websocket("/chat")(chat)]
        self._app = Litestar(
            handlers,
            plugins=[self._channels],
            signature_namespace={"WebSocket": WebSocket},
        )

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return self._count

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to everyone."""
        assert room is None
        self._channels.publish(message, CHANNEL)

    async def _handle(self, socket: WebSocket, *, speaks: bool) -> None:
        await socket.accept()
        async with (
            self._channels.start_subscription(CHANNEL) as subscriber,
            subscriber.run_in_background(socket.send_text),
        ):
            self._count += 1
            try:
                while True:
                    message = await socket.receive_text()
                    if speaks:
                        self._channels.publish(message, CHANNEL)
            except WebSocketDisconnect:
                pass
            finally:
                self._count -= 1
