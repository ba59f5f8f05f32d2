"""An app around one handler that uses the managed surface, and clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fastapi import FastAPI, WebSocket

from wshub import Connection, ConnectionManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[Connection], Awaitable[object]]


class ManagedApp:
    """
    Runs `handler` in `manager.connection()` at `/ws`, with `?user=` and `?room=` as given.

    Attributes:
        opened: Every connection so far.
        outcomes: How every handler so far ended: None or its error.
    """

    def __init__(self, handler: Handler, manager: ConnectionManager | None = None) -> None:
        self.manager = manager or ConnectionManager()
        self.handler = handler
        self.opened: list[Connection] = []
        self.outcomes: list[BaseException | None] = []
        self.app = FastAPI()
        self.app.add_api_websocket_route("/ws", self._handle)

    async def _handle(self, websocket: WebSocket) -> None:
        user = websocket.query_params.get("user")
        rooms = websocket.query_params.getlist("room")
        try:
            async with self.manager.connection(websocket, user=user, rooms=rooms) as connection:
                self.opened.append(connection)
                await self.handler(connection)
        except BaseException as error:
            self.outcomes.append(error)
            raise
        self.outcomes.append(None)


async def echo(connection: Connection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def stall(url: str) -> AsyncIterator[socket.socket]:
    """Complete a handshake with `url` over a tiny receive buffer, then never read again."""
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        await loop.sock_connect(client, (parts.hostname, parts.port))
        await loop.sock_sendall(client, request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(client, 1024)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield client
