"""Peers that read slowly, and a server that stops meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp, hold
from tests.uvicorn.fanout import (
    FANOUT,
    SEND_BUFFER,
    block,
    fill_to_the_brim,
    frames_to_the_end,
    held_by,
    opened,
    serve,
    stalling,
)
from wshub import ConnectionManager, OutboxOptions
from wshub.testing import (
    Opcode,
    StalledClient,
    connect,
    frame,
    live_server,
    until,
)

if TYPE_CHECKING:
    from wshub.testing import FakeClock


async def test_one_large_message_may_take_longer_than_send_timeout(fake_clock: FakeClock) -> None:
    """
    A peer that goes on reading is not cut off, however long it takes.

    Nor is it through ASGI, where a large message is out of sight once the server has taken it.
    """
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=8), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with stalling(managed) as (_, client, connection):
        await connection.send("x" * 500_000)
        await until(lambda: connection.outbox.messages)
        read = 0
        while connection.outbox.messages:
            held = held_by(connection)
            await fake_clock.advance(4)
            read += len(await client.read(50_000))
            await until(lambda: held_by(connection) < held)  # noqa: B023
            await fake_clock.advance(4)
            assert connection.closed is None
        await client.read(500_010 - read)
    assert manager.statistics().sent == 1


async def test_one_large_message_cuts_off_who_stops_reading_it(fake_clock: FakeClock) -> None:
    """A peer that has read some, but nothing for `send_timeout`, is evicted."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=8), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with stalling(managed) as (server, client, connection):
        await connection.send("x" * 500_000)
        await until(lambda: connection.outbox.messages)
        held = held_by(connection)
        await fake_clock.advance(4)
        await client.read(50_000)
        await until(lambda: held_by(connection) < held)
        await fake_clock.advance(4)
        assert connection.closed is None
        await asyncio.sleep(0.1)
        await fake_clock.advance(8)
        assert str(connection.closed) == (
            "connection closed by the hub with 1013 (reading too slowly)"
        )
        await fake_clock.advance(1)
        await until(lambda: not server.connections)
    figures = manager.statistics()
    assert (figures.sent, figures.dropped["closed"], figures.queued) == (0, 1, 0)


async def test_a_handler_that_returns_leaves_nothing_behind_in_the_queue() -> None:
    """The tutorial's surface: what waits for a slow client leaves before the server closes."""
    manager, app, leave = ConnectionManager(), FastAPI(), asyncio.Event()

    @app.websocket("/ws")
    async def wait(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await leave.wait()

    async with (
        live_server(app, ws=FANOUT, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        await until(lambda: manager.statistics().connections)
        for number in range(5):
            await manager.broadcast(f"{number}" * 50_000)
        await until(lambda: manager.statistics().queued == 5)
        leave.set()
        await until(lambda: not server.uvicorn.server_state.tasks)
        texts = [frame.payload for frame in await frames_to_the_end(client)]
        assert texts == [f"{number}".encode() * 50_000 for number in range(5)]
        await until(lambda: not server.connections)
        figures = manager.statistics()
        assert (figures.sent, figures.queued, figures.dropped["closed"]) == (5, 0, 0)


async def test_a_slow_reader_gets_everything_at_a_stop(fake_clock: FakeClock) -> None:
    """What is queued for it comes before 1012, as long as it goes on reading; all is counted."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=100), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with stalling(managed, timeout_graceful_shutdown=None) as (server, client, connection):
        for number in range(5):
            await manager.broadcast(f"{number}" * 50_000)
        await until(lambda: connection.outbox.messages == 5)
        server.uvicorn.should_exit = True
        await until(lambda: managed.outcomes == [None])
        got: list[bytes] = []
        while len(got) < 5:
            held = held_by(connection)
            got.append((await client.read_frame()).payload)
            await until(lambda: held_by(connection) < held)  # noqa: B023
            await fake_clock.advance(1)
        assert got == [f"{number}".encode() * 50_000 for number in range(5)]
        (last,) = await frames_to_the_end(client)
        assert (last.opcode, last.payload) == (Opcode.CLOSE, (1012).to_bytes(2))
        await until(lambda: not server.connections)
        figures = manager.statistics()
        assert (figures.sent, figures.dropped["closed"], figures.queued) == (5, 0, 0)


async def test_who_is_told_to_go_is_not_told_to_come_back_by_a_stop() -> None:
    """A close that waits behind what is queued leaves in the place of 1012."""
    managed = ManagedApp(hold)
    async with stalling(managed) as (server, client, connection):
        await block(connection)
        closing = asyncio.create_task(connection.close(4001, "banned"))
        await until(lambda: connection.closed)
        (protocol,) = server.uvicorn.server_state.connections
        server.uvicorn.should_exit = True
        await until(protocol.transport.is_closing)
        last = (await frames_to_the_end(client))[-1]
        assert (last.opcode, last.payload) == (Opcode.CLOSE, (4001).to_bytes(2) + b"banned")
        await closing
        await until(lambda: not server.connections)


@pytest.mark.parametrize("reads", [0, 3])
async def test_a_stop_waits_a_second_for_who_does_not_read(
    reads: int, fake_clock: FakeClock
) -> None:
    """And `send_timeout` for who does; what was not read then counts as dropped."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=4), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with stalling(managed, timeout_graceful_shutdown=None) as (server, client, connection):
        for _ in range(5):
            await manager.broadcast("x" * 50_000)
        await until(lambda: connection.outbox.messages == 5)
        server.uvicorn.should_exit = True
        await until(lambda: managed.outcomes == [None])
        await until(lambda: manager.statistics().connections == 0)
        await fake_clock.advance(0)
        for _ in range(reads):
            held = held_by(connection)
            await client.read(20_000)
            await until(lambda: held_by(connection) < held)  # noqa: B023
            await fake_clock.advance(1)
            assert server.connections == 1
        await fake_clock.advance(1)
        await until(lambda: not server.connections)
        figures = manager.statistics()
        assert (figures.sent, figures.dropped["closed"], figures.queued) == (0, 5, 0)


async def test_pongs_go_before_the_word_of_a_shutdown() -> None:
    """Behind a close frame nothing is sent, not even the answer to a ping."""
    managed = ManagedApp(hold)
    async with stalling(managed) as (server, client, connection):
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"?") + frame(Opcode.TEXT, b"behind it"))
        await until(lambda: managed.manager.statistics().received)
        server.uvicorn.should_exit = True
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-2:] == [Opcode.PONG, Opcode.CLOSE]


@pytest.mark.parametrize("how", ["the peer closes", "the server stops"])
async def test_a_last_frame_that_the_socket_has_no_room_for(
    how: str, fake_clock: FakeClock
) -> None:
    """A peer that does not read it is dropped a second later, though nothing waited before it."""
    managed = ManagedApp(hold, ConnectionManager(clock=fake_clock))
    async with stalling(managed, timeout_graceful_shutdown=None) as (server, client, connection):
        fill_to_the_brim(connection)
        if how == "the peer closes":
            await client.send_frame(Opcode.CLOSE, (4000).to_bytes(2))
        else:
            server.uvicorn.should_exit = True
        await until(lambda: connection.closed)
        await until(lambda: managed.outcomes == [None])
        assert server.connections
        await fake_clock.advance(1)
        await until(lambda: not server.connections)


async def test_a_peer_that_closes_unread_does_not_disturb_a_shutdown() -> None:
    """The server has nothing more to tell a peer that does not read what answers its close."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER, timeout_graceful_shutdown=None) as server,
        StalledClient(f"{server.ws}/ws") as client,
        connect(f"{server.ws}/ws") as bystander,
    ):
        stalled, _ = await opened(managed, 2)
        await block(stalled)
        await client.send_frame(Opcode.CLOSE, (4000).to_bytes(2))
        await until(lambda: stalled.closed)
        server.uvicorn.should_exit = True
        assert (await bystander.closed())[0] == 1012
        await until(lambda: not server.connections)
