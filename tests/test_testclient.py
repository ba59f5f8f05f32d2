"""Starlette's TestClient, where it behaves as a server does."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from wshub import ConnectionManager

manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/rooms/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    async with manager.connection(websocket, rooms=[room]) as connection:
        async for message in connection.iter_text():
            if message == "bye":
                await connection.close(4000, "so long")
            else:
                await manager.broadcast(message, room=room)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_manager_can_be_tested_without_a_server(attempt: int) -> None:
    """Row 18: it lies about much; but a manager of a module serves one test after the other."""
    with (
        TestClient(app) as client,
        client.websocket_connect("/rooms/tea") as first,
        client.websocket_connect("/rooms/tea") as second,
    ):
        first.send_text(f"hello {attempt}")
        assert first.receive_text() == f"hello {attempt}"
        assert second.receive_text() == f"hello {attempt}"
        second.send_text("bye")
        with pytest.raises(WebSocketDisconnect) as closed:
            second.receive_text()
        assert (closed.value.code, closed.value.reason) == (4000, "so long")
    assert manager.active_connections == []
