"""An app around one handler that uses the managed surface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, WebSocket

from wshub import Connection, ConnectionClosed, ConnectionManager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


class Late:
    """
    An app whose handlers receive when they are told to.

    Attributes:
        got: What was received.
    """

    def __init__(self, **options: Any) -> None:
        self.managed = ManagedApp(self._receive, ConnectionManager(**options))
        self.manager = self.managed.manager
        self.got: list[str | bytes] = []
        self._leave = asyncio.Semaphore(0)

    async def _receive(self, connection: Connection) -> None:
        try:
            while True:
                await self._leave.acquire()
                self.got.append(await connection.receive())
        except ConnectionClosed:
            pass

    def receive(self, count: int) -> None:
        """Let so many messages be received."""
        for _ in range(count):
            self._leave.release()


async def echo(connection: Connection) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


async def hold(connection: Connection) -> None:
    """Receive until the end."""
    async for _ in connection:
        pass


async def hear_nothing(connection: Connection) -> None:
    """Receive until the end, and nothing before it."""
    assert [message async for message in connection] == []
