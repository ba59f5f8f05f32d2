"""
The tutorial's first app: the server says back what it is told, as text, bytes or JSON.

Run it with ``python -m examples echo`` and open the address that it prints.
"""

from pathlib import Path

from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse

from wshub import ConnectionManager

manager = ConnectionManager()
app = FastAPI(title="wshub example: echo", lifespan=manager.lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    """Text comes back with a few words in front, bytes come back as they are."""
    async with manager.connection(websocket) as connection:
        async for message in connection:
            if isinstance(message, str):
                await connection.send(f"Message text was: {message}")
            else:
                await connection.send(message)


@app.websocket("/ws/json")
async def echo_json(websocket: WebSocket) -> None:
    """Only JSON here; text that is not JSON ends the connection with code 1007."""
    async with manager.connection(websocket) as connection:
        async for value in connection.iter_json():
            await connection.send({"Message JSON was": value})
