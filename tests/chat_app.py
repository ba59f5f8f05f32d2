"""The tutorial's chat, for any server, with a door through which a test looks in."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from wshub import Connection, ConnectionManager, OutboxOptions

OPTIONS = OutboxOptions(max_messages=100, max_bytes=10_000_000, send_timeout=1.0)


class Chat:
    """
    An app whose clients chat at `/ws/{name}`.

    A message `wait` keeps the handler busy until `POST /release`, `close` makes it close; both
    then use the connection in every way. `GET /state` has what came of it, and the figures.
    """

    def __init__(self) -> None:
        self.manager = ConnectionManager(outbox=OPTIONS)
        self.release = asyncio.Event()
        self.outcomes: dict[str, list[str]] = {}
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.app.add_api_websocket_route("/ws/{name}", self.chat)
        self.app.add_api_route("/release", self.let_go, methods=["POST"])
        self.app.add_api_route("/broadcast", self.broadcast, methods=["POST"])
        self.app.add_api_route("/state", self.state)

    async def chat(self, websocket: WebSocket, name: str) -> None:
        """Take part until the client leaves."""
        connection = await self.manager.connect(websocket)
        try:
            while True:
                text = await websocket.receive_text()
                if text == "wait":
                    await self.release.wait()
                    self.outcomes[name] = await self.use(connection)
                elif text == "close":
                    await connection.close(4000, "enough")
                    self.outcomes[name] = await self.use(connection)
                else:
                    await self.manager.broadcast(f"{name}: {text}")
        except WebSocketDisconnect:
            self.manager.disconnect(websocket)
            await self.manager.broadcast(f"{name} left")

    async def use(self, connection: Connection[None]) -> list[str]:
        """Use a connection in every way, twice; return what that raises."""
        raised: list[str] = []
        for _ in range(2):
            for use in (
                self.manager.send_personal_message("hello?", connection.websocket),
                connection.send("hello?"),
                connection.receive(),
                connection.join("tea"),
                connection.close(4001, "again"),
                self.manager.broadcast("is anyone there?", exclude=[connection]),
            ):
                try:
                    await use
                except Exception as error:
                    raised.append(type(error).__name__)
                else:
                    raised.append("fine")
            self.manager.disconnect(connection.websocket)
        return raised

    async def let_go(self) -> None:
        """Let the handlers that wait go on."""
        self.release.set()

    async def broadcast(self, size: int, count: int, pause: float = 0) -> None:
        """Send so many messages of so many bytes to everyone, with pauses of so many seconds."""
        for _ in range(count):
            await self.manager.broadcast("x" * size)
            if pause:
                await asyncio.sleep(pause)

    async def state(self) -> dict[str, Any]:
        """Return the figures, and what handlers came upon."""
        return {**self.manager.statistics()._asdict(), "outcomes": self.outcomes}


def create_app() -> FastAPI:
    """Make a chat, for servers that take a factory."""
    return Chat().app
