"""Peers that leave, or lie, while frames are on their way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.managed import ManagedApp, hold
from tests.uvicorn.fanout import (
    FANOUT,
    SEND_BUFFER,
    opened,
    protocol_of,
    serve,
)
from wshub import Connection, ConnectionManager, MessagesDropped
from wshub.testing import (
    DeadClient,
    Opcode,
    RawClient,
    connect,
    frame,
    live_server,
    until,
)


async def test_invalid_text_before_a_close_frame(caplog: pytest.LogCaptureFixture) -> None:
    """In one segment: the connection ends, and no error reaches the event loop."""
    managed = ManagedApp(hold)
    async with serve(managed) as server, RawClient(f"{server.ws}/ws") as client:
        await client.send_bytes(frame(Opcode.TEXT, b"\xff") + frame(Opcode.CLOSE, b"\x03\xe8"))
        assert (await client.read_frame()).opcode == Opcode.CLOSE
        assert await client.read(1) == b""
        await until(lambda: managed.outcomes == [None])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_peer_that_is_lost_as_it_is_written_to() -> None:
    """A reset that shows in the write ends it at once; a hook that sends to it harms nothing."""
    tried = 0

    def tell(event: object) -> None:
        nonlocal tried
        if isinstance(event, MessagesDropped):
            tried += 1
            event.connection.send_nowait("you missed something")

    managed = ManagedApp(hold, ConnectionManager(hooks=[tell]))
    manager = managed.manager
    async with serve(managed) as server, connect(f"{server.ws}/ws") as bystander:
        await opened(managed)
        async with DeadClient(f"{server.ws}/ws") as client:
            await opened(managed, 2)
            client.die()
            while managed.opened[1].closed is None:
                await manager.broadcast("are you there?")
                assert await bystander.receive() == "are you there?"
        await until(lambda: server.connections == 1)
        figures = manager.statistics()
        assert figures.queued == 0


@pytest.mark.parametrize("says", [None, Opcode.TEXT, Opcode.CLOSE])
async def test_who_leaves_in_the_handshake_is_in_nobodys_way(says: Opcode | None) -> None:
    """Broadcasts go on, and nothing of it is left."""
    gate = asyncio.Event()

    async def call_late(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"] == b"late":
            await gate.wait()
        await managed.app(scope, receive, send)

    managed = ManagedApp(hold)
    manager = managed.manager
    async with (
        live_server(call_late, ws=FANOUT, lifespan="off") as server,
        connect(f"{server.ws}/ws") as bystander,
    ):
        await opened(managed)
        async with RawClient(f"{server.ws}/ws?late", wait=False) as client:
            await until(lambda: len(server.uvicorn.server_state.tasks) == 2)
            if says is not None:
                await client.send_frame(says)
        if says != Opcode.TEXT:  # which nobody has received yet, and nobody reads on behind it
            await until(lambda: server.connections == 1)
        gate.set()
        for number in range(10):
            await manager.broadcast(f"{number}")
            assert await bystander.receive() == f"{number}"
        await until(lambda: len(managed.outcomes) == 1)
        await until(lambda: server.connections == 1)
        assert manager.statistics().connections == 1
        assert manager.statistics().queued == 0


@pytest.mark.parametrize("how", ["leaves", "is reset"])
async def test_who_leaves_while_nobody_takes_its_messages(how: str) -> None:
    """Reading has stopped by then, and begins no more; what was taken is still received."""
    go_on = asyncio.Event()
    got: list[str | bytes] = []

    async def receive_late(connection: Connection) -> None:
        await go_on.wait()
        got.extend([message async for message in connection])

    managed = ManagedApp(receive_late, ConnectionManager(read_ahead=4))
    manager = managed.manager
    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        async with DeadClient(f"{server.ws}/ws") as client:
            (connection,) = await opened(managed)
            for number in range(5000):
                await client.send_frame(Opcode.TEXT, f"{number}".encode())
            await until(lambda: protocol_of(server).read_paused)
            if how == "leaves":
                client.socket.close()
            else:
                client.die()
            while connection.closed is None:
                await manager.broadcast("x" * 1000)
                await asyncio.sleep(0)
        go_on.set()
        await until(lambda: managed.outcomes == [None])
        await until(lambda: not server.connections)
    figures = manager.statistics()
    assert got == [f"{number}" for number in range(len(got))]
    assert len(got) >= 4
    assert figures.received == len(got) + figures.unread
