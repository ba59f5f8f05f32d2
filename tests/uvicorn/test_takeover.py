"""A manager that takes over a connection on which others have received, or receive still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketState

from tests.managed import ManagedApp
from tests.uvicorn.fanout import FANOUT, protocol_of
from wshub import ConnectionManager
from wshub.testing import Opcode, RawClient, connect, frame, live_server, until

if TYPE_CHECKING:
    from wshub import Connection


async def test_what_came_before_the_manager_is_received_first() -> None:
    """An app may accept by itself, and receive, before it hands the WebSocket over."""
    manager, app, gate = ConnectionManager(read_ahead=4), FastAPI(), asyncio.Event()
    got: list[str] = []

    @app.websocket("/ws")
    async def hand_over(websocket: WebSocket) -> None:
        await websocket.accept()
        got.append(await websocket.receive_text())
        await gate.wait()
        async with manager.connection(websocket) as connection:
            got.extend([str(message) async for message in connection])

    async with (
        live_server(app, ws=FANOUT, lifespan="off") as server,
        RawClient(f"{server.ws}/ws") as client,
    ):
        messages = [frame(Opcode.TEXT, b"%d" % number) for number in range(2000)]
        await client.send_bytes(b"".join(messages))
        await client.send_frame(Opcode.CLOSE, (4000).to_bytes(2))
        await until(lambda: got)
        gate.set()
        await until(lambda: len(got) == 2000)
        assert got == [str(number) for number in range(2000)]
        await until(lambda: manager.statistics().connections == 0)


@pytest.mark.parametrize("waits_for", ["a message", "the end"])
async def test_who_receives_already_when_a_manager_takes_over(waits_for: str) -> None:
    """It sees the end; messages are the manager's from then on."""
    manager = ConnectionManager()
    seen: list[Any] = []
    got: list[str | bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        if waits_for == "a message":
            await until(lambda: not protocol_of(server).queue.empty() or waiting.done())
        websocket = WebSocket(scope, receive, send)
        websocket.client_state = websocket.application_state = WebSocketState.CONNECTED
        async with manager.connection(websocket) as connection:
            async for message in connection:
                got.append(message)  # noqa: PERF401  (what has come so far is looked at)
        seen.append(await waiting)

    async with live_server(app, ws=FANOUT, lifespan="off") as server:
        async with connect(f"{server.ws}/ws") as client:
            if waits_for == "a message":
                await client.send("before")
                await client.send("then")
            await until(lambda: manager.statistics().connections)
            await client.send("after")
            await until(lambda: "after" in got)
            await client.close(4000)
        await until(lambda: seen)
    if seen[0]["type"] == "websocket.disconnect":
        assert seen[0]["code"] == 4000
    else:
        assert seen[0]["text"] == "before"


async def test_what_a_raw_receive_sees_after_a_manager_took_over() -> None:
    """Nothing but the end."""
    manager = ConnectionManager()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with manager.connection(WebSocket(scope, receive, send)) as connection:
            raw = asyncio.create_task(receive())
            assert [message async for message in connection] == ["hello"]
            seen.append(await raw)

    async with (
        live_server(app, ws=FANOUT, lifespan="off") as server,
        connect(f"{server.ws}/ws") as client,
    ):
        await client.send("hello")
        await client.close(4000, "enough")
        await until(lambda: seen)
    assert seen == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]


async def test_who_receives_already_sees_an_end_that_came_before_the_manager() -> None:
    """Also one that came in the very turn in which the manager takes over."""
    manager = ConnectionManager()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        receive.__self__.data_received(frame(Opcode.TEXT, b"last") + frame(Opcode.CLOSE))
        websocket = WebSocket(scope, receive, send)
        websocket.client_state = websocket.application_state = WebSocketState.CONNECTED
        async with manager.connection(websocket) as connection:
            seen.extend([message async for message in connection])
        seen.append((await waiting)["type"])

    async with (
        live_server(app, ws=FANOUT, lifespan="off") as server,
        RawClient(f"{server.ws}/ws") as client,
    ):
        assert (await client.read_frame()).opcode == Opcode.CLOSE
        await until(lambda: len(seen) == 2)
    assert seen == ["last", "websocket.disconnect"]


async def test_a_middleware_that_wraps_receive_sees_every_message() -> None:
    """The manager then goes by way of ASGI, as under any server."""
    seen: list[str] = []

    async def call_watched(scope: Any, receive: Any, send: Any) -> None:
        async def look() -> Any:
            event = await receive()
            seen.append(event["type"])
            return event

        await managed.app(scope, look, send)

    async def echo_back(connection: Connection) -> None:
        async for message in connection:
            await connection.send(message)

    managed = ManagedApp(echo_back)
    async with live_server(call_watched, ws=FANOUT, lifespan="off") as server:
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("hello") == "hello"
            await managed.manager.broadcast("everyone")
            assert await client.receive() == "everyone"
        await until(lambda: managed.outcomes == [None])
    assert seen == ["websocket.connect", "websocket.receive", "websocket.disconnect"]


@pytest.mark.parametrize("rude", [b"\x81\x01x", b"\xff" * 100], ids=["unmasked", "garbage"])
async def test_who_lies_before_the_handshake_is_answered(
    rude: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No error reaches the event loop or the app, and the connection ends."""
    gate, managed = asyncio.Event(), ManagedApp(lambda connection: connection.receive())

    async def call_late(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await managed.app(scope, receive, send)

    async with (
        live_server(call_late, ws=FANOUT, lifespan="off") as server,
        RawClient(f"{server.ws}/ws", wait=False) as client,
    ):
        await until(lambda: server.uvicorn.server_state.tasks)
        await client.send_bytes(rude)
        await until(lambda: not server.connections)
        gate.set()
        await until(lambda: not server.uvicorn.server_state.tasks)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
