"""python-socketio as its documentation sets it up: a room, as an ASGI application on uvicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from socketio import ASGIApp, AsyncRedisManager, AsyncServer

from benchmarks.servers.asgi import serve

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)

ROOM = "everyone"
NO_PINGS = 3600
"""Seconds between pings: other servers here send none, and clients answer none."""


class Server:
    """Each connection enters the room that its query names; what one says is for all in it."""

    def __init__(self, broker: str | None = None) -> None:
        self._rooms: dict[str, str] = {}
        manager = None if broker is None else AsyncRedisManager(broker)
        self._server = AsyncServer(
            async_mode="asgi", client_manager=manager, ping_interval=NO_PINGS
        )
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._server.on("message", self._speak)
        self._app = ASGIApp(self._server)

    @property
    def connection_count(self) -> int:
        """Connections that a broadcast would reach."""
        return len(self._rooms)

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        return serve(self._app, listener, ws)

    async def broadcast(self, message: str, room: str | None) -> None:
        """Send `message` to everyone."""
        assert room is None
        await self._server.emit("message", message, room=ROOM)

    async def _connect(self, sid: str, environ: dict[str, Any]) -> None:
        query = parse_qs(environ["QUERY_STRING"])
        (room,) = query.get("room", [ROOM])
        await self._server.enter_room(sid, room)
        self._rooms[sid] = room

    async def _disconnect(self, sid: str, reason: str) -> None:
        del reason
        del self._rooms[sid]

    async def _speak(self, sid: str, message: str) -> None:
        await self._server.emit("message", message, room=self._rooms[sid])
