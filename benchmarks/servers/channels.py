"""Django Channels as its tutorial sets up a chat, with the pub/sub layer of channels_redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)

GROUP = "chat"


class Server:
    """Each connection is in the group of its path, and what it says is for all in it."""

    def __init__(self, broker: str) -> None:
        layer = {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [broker]},
        }
        settings.configure(CHANNEL_LAYERS={"default": layer})
        django.setup()
        self._app = ProtocolTypeRouter(
            {"websocket": URLRouter([re_path(r"^chat/(?P<group>\w+)$", Chat.as_asgi())])}
        )

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return Chat.count

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to one group."""
        layer: Any = get_channel_layer()
        await layer.group_send(room or GROUP, {"type": "chat.message", "message": message})


class Chat(AsyncWebsocketConsumer):  # type: ignore[misc]
    """The consumer of the tutorial, but for JSON around the text."""

    count = 0

    async def connect(self) -> None:
        """Join the group."""
        self.group = self.scope["url_route"]["kwargs"]["group"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        Chat.count += 1

    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        del code
        Chat.count -= 1
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Say to the group what the client said."""
        del bytes_data
        event = {"type": "chat.message", "message": text_data}
        await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event: dict[str, str]) -> None:
        """Send to the client what somebody said."""
        await self.send(text_data=event["message"])
