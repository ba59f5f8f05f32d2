"""
A worker for tests: `/ws?user=…&room=…` for clients, and routes to send by.

Its backend is the one that `WSHUB_BACKEND` names, with options in `WSHUB_OPTIONS`, as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from fastapi import Body, FastAPI, WebSocket

from wshub import BackendLost, BackendRegained, ConnectionManager, Event
from wshub.backends import backend_from_url

Texts = Annotated[list[str], Body()]

outages: list[str] = []


def note(event: Event) -> None:
    if isinstance(event, BackendLost | BackendRegained):
        outages.append(type(event).__name__)


backend = backend_from_url(os.environ["WSHUB_BACKEND"], **json.loads(os.environ["WSHUB_OPTIONS"]))
manager = ConnectionManager(backend=backend, hooks=[note])
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    query = websocket.query_params
    async with manager.connection(
        websocket, user=query.get("user"), rooms=query.getlist("room")
    ) as connection:
        await connection.send({"id": connection.id, "worker": os.getpid()})
        async for message in connection:
            await manager.broadcast(message, room="said", exclude=[connection])


@app.post("/broadcast")
async def broadcast(texts: Texts, room: str | None = None, exclude: str = "") -> None:
    for text in texts:
        await manager.broadcast(text, room=room, exclude=exclude.split(","))


@app.post("/user/{user}")
async def tell(user: str, texts: Texts) -> None:
    for text in texts:
        await manager.send_to_user(user, text)


@app.delete("/user/{user}")
async def dismiss(user: str, code: int, reason: str) -> None:
    await manager.disconnect_user(user, code=code, reason=reason)


@app.get("/state")
async def state() -> dict[str, Any]:
    return {
        "health": manager.health()._asdict(),
        "statistics": manager.statistics()._asdict(),
        "outages": outages,
        "worker": os.getpid(),
    }
