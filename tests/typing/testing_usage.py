"""What an editor infers of the tools for tests. Checked, never executed."""

from typing import Any, assert_type

import uvicorn
from fastapi import FastAPI
from starlette.websockets import WebSocket

from wshub import ConnectionManager
from wshub.testing import (
    Client,
    DeadClient,
    FakeClock,
    FaultySink,
    Frame,
    HalfOpenClient,
    LiveServer,
    Refusal,
    StalledClient,
    connect,
    frame,
    live_server,
    refusal,
    until,
    wait_until,
)

app = FastAPI()


async def serve_in_the_tests_loop() -> None:
    """A server, its addresses, and a client with deadlines."""
    async with live_server(app, ws="wsproto", ws_max_size=1000, timeout=3) as server:
        assert_type(server, LiveServer)
        assert_type(server.ws, str)
        assert_type(server.port, int)
        assert_type(server.connections, int)
        assert_type(server.uvicorn, uvicorn.Server)
        async with connect(server.ws, additional_headers={"Cookie": "session=x"}) as client:
            assert_type(client, Client)
            assert_type(await client.ask("hello"), str | bytes)
            assert_type(await client.receive_json(), Any)
            assert_type(await client.closed(), tuple[int, str])
        assert_type(await refusal(server.ws), Refusal)
        await until(lambda: server.connections == 0, 3, awaited="the end")


def serve_in_a_thread() -> None:
    """The same server for a test without an event loop."""
    with live_server(app, loop="uvloop") as server:
        assert_type(server, LiveServer)
        wait_until(lambda: server.connections)
    live_server(app, loop="trio")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def misbehave(url: str) -> None:
    """Each client that misbehaves is of its own kind."""
    async with StalledClient(url) as stalled, DeadClient(url) as dead, HalfOpenClient(url) as gone:
        assert_type(stalled, StalledClient)
        assert_type(dead, DeadClient)
        assert_type(gone, HalfOpenClient)
        dead.die()
        gone.shut()
        await stalled.send_bytes(frame(1, b"hello"))
        assert_type(await stalled.read_frame(), Frame)


async def fake(clock: FakeClock) -> None:
    """A clock that the manager takes, and a connection made by hand."""
    manager = ConnectionManager(clock=clock)
    sink = FaultySink()
    assert_type(sink.websocket, WebSocket)
    async with manager.connection(sink.websocket):
        sink.fault = OSError("gone")
        await clock.advance(30)
