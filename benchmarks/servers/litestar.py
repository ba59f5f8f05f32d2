"""Litestar's channels as its documentation sets them up, on uvicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.exceptions import WebSocketDisconnect
from redis.asyncio import Redis

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)

CHANNEL = "everyone"


class Server:
    """
    Each connection subscribes to one channel.

    On the path `/chat`, or with a name behind it, it also publishes to it.
    """

    def __init__(self, broker: str | None = None) -> None:
        self._count = 0
        backend = (
            MemoryChannelsBackend()
            if broker is None
            else RedisChannelsPubSubBackend(redis=Redis.from_url(broker))
        )
        self._channels = ChannelsPlugin(
            backend, channels=[CHANNEL], arbitrary_channels_allowed=True
        )

        async def listen(socket: WebSocket) -> None:
            await self._handle(socket, speaks=False)

        async def chat(socket: WebSocket) -> None:
            await self._handle(socket, speaks=True)

        async def chat_in(socket: WebSocket, name: str) -> None:
            await self._handle(socket, name, speaks=True)

        handlers = [
            websocket("/ws")(listen),
            websocket("/chat")(chat),
            websocket("/chat/{name:str}")(chat_in),
        ]
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

    async def _handle(self, socket: WebSocket, channel: str = CHANNEL, *, speaks: bool) -> None:
        await socket.accept()
        async with (
            self._channels.start_subscription(channel) as subscriber,
            subscriber.run_in_background(socket.send_text),
        ):
            self._count += 1
            try:
                while True:
                    message = await socket.receive_text()
                    if speaks:
                        self._channels.publish(message, channel)
            except WebSocketDisconnect:
                pass
            finally:
                self._count -= 1
