"""An app whose handlers wait for something else than their clients, for servers that stop."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, WebSocket

from wshub import ConnectionManager, OutboxOptions

# uvicorn's `--ws websockets` tells nobody of a shutdown before a client that stalls has taken its
# close frame, or was cut off for it.
manager = ConnectionManager(outbox=OutboxOptions(send_timeout=2))
app = FastAPI(lifespan=manager.lifespan)
news: asyncio.Queue[str] = asyncio.Queue()


@app.websocket("/wait")
async def wait(websocket: WebSocket) -> None:
    """Wait for news that never come."""
    async with manager.connection(websocket) as connection:
        await connection.send("welcome")
        while True:
            await connection.send(await news.get())


@app.websocket("/push")
async def push(websocket: WebSocket) -> None:
    """Send all the time, and never receive."""
    async with manager.connection(websocket) as connection:
        await connection.send("welcome")
        while True:
            await connection.send(bytes(100_000))
            await asyncio.sleep(0.01)
