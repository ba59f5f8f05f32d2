"""What is left of a peer that was cut off: nothing, on any of uvicorn's implementations."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.managed import ManagedApp, hear_nothing
from wshub import Connection, ConnectionManager, OutboxOptions
from wshub.testing import StalledClient, live_server, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from wshub.testing import FakeClock, LiveServer

BLOCK = "x" * 100_000
"""More than the buffers of these tests take."""

SEND_BUFFER = 4096
"""Bytes that the system takes from the server for a client that does not read."""

SEND_TIMEOUT = 10.0


def open_files() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


@asynccontextmanager
async def serve(
    ws: str, *, clock: FakeClock | None = None, send_timeout: float = SEND_TIMEOUT, **options: Any
) -> AsyncIterator[tuple[LiveServer, ManagedApp]]:
    """Serve peers with send buffers that are full soon."""
    outbox = OutboxOptions(max_messages=5, max_bytes=10**7, send_timeout=send_timeout)
    managed = ManagedApp(hear_nothing, ConnectionManager(outbox=outbox, clock=clock))
    async with live_server(managed.app, ws=ws, send_buffer=SEND_BUFFER, **options) as server:
        yield server, managed


async def block(managed: ManagedApp) -> Connection:
    """Send to the only peer until it blocks."""
    await until(lambda: managed.opened)
    (connection,) = managed.opened
    while not connection.outbox.messages:
        await connection.send(BLOCK)
        for _ in range(5):  # event loops write to the socket a turn later
            await asyncio.sleep(0)
    return connection


async def overflow(connection: Connection, manager: ConnectionManager) -> None:
    while connection.closed is None:
        await manager.broadcast(BLOCK)


async def outwait(connection: Connection, manager: ConnectionManager) -> None:
    """Do nothing: time will pass."""


async def close(connection: Connection, manager: ConnectionManager) -> None:
    connection.spawn(asyncio.sleep(60))
    asyncio.get_running_loop().create_task(connection.close(4000))


async def dismiss(connection: Connection, manager: ConnectionManager) -> None:
    await manager.disconnect_user("ann")


async def abort(connection: Connection, manager: ConnectionManager) -> None:
    connection.abort()


CutOff: TypeAlias = "Callable[[Connection, ConnectionManager], Awaitable[None]]"


@pytest.mark.parametrize("cut_off", [overflow, outwait, close, dismiss, abort])
async def test_nothing_is_left_of_a_stalled_peer(
    ws: str, cut_off: CutOff, fake_clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No task, socket, descriptor or object, though the peer keeps its own end open."""
    # pytest keeps records, and those of old versions of websockets refer to their connection.
    caplog.set_level(logging.WARNING, "uvicorn.error")
    async with serve(ws, clock=fake_clock) as (server, managed):
        manager, tasks, files = managed.manager, asyncio.all_tasks(), open_files()
        async with StalledClient(f"{server.ws}/ws?user=ann&room=tea"):
            connection = await block(managed)
            gone = weakref.ref(connection)
            await cut_off(connection, manager)
            await fake_clock.advance(SEND_TIMEOUT)
            figures = manager.statistics()
            assert (figures.connections, figures.rooms, figures.users) == (0, 0, 0)
            await fake_clock.advance(1)  # for the close frame that it does not take
            await until(lambda: not server.connections)
            await until(lambda: managed.outcomes == [None])
            await until(lambda: asyncio.all_tasks() == tasks)
            await until(lambda: open_files() == files + 1)  # the client's own
            managed.opened.clear()
            del connection
            await until(lambda: gc.collect() >= 0 and gone() is None)
        assert manager.statistics().queued == 0
        assert fake_clock.waiting == 0


@pytest.mark.stock_server  # with FanoutProtocol, what the transport holds blocks
async def test_a_peer_that_takes_no_close_frame(ws: str, fake_clock: FakeClock) -> None:
    """The same for one whose last bytes the server's buffer holds, without blocking anybody."""
    async with serve(ws, clock=fake_clock) as (server, managed):
        tasks, files = asyncio.all_tasks(), open_files()
        async with StalledClient(f"{server.ws}/ws"):
            await until(lambda: managed.opened)
            (connection,) = managed.opened
            while not connection._link._sink.unsent_bytes:
                await connection.send("x" * 1000)
                await asyncio.sleep(0)
            assert not connection.outbox.messages
            closing = asyncio.create_task(connection.close(4000))
            await fake_clock.advance(SEND_TIMEOUT)
            await closing
            await until(lambda: not server.connections)
            await until(lambda: asyncio.all_tasks() == tasks)
            await until(lambda: open_files() == files + 1)


async def test_a_stalled_peer_does_not_hold_up_a_shutdown(ws: str) -> None:
    """
    A server that waits for its connections without a limit stops, and leaves nothing.

    The deprecated implementation tells nobody of it before the peer is cut off.
    """
    async with serve(ws, send_timeout=0.3, timeout_graceful_shutdown=None) as (
        server,
        managed,
    ):
        files = open_files()
        async with StalledClient(f"{server.ws}/ws"):
            await block(managed)
            server.uvicorn.should_exit = True
            await until(lambda: not server.connections, timeout=5)
            await until(lambda: open_files() <= files + 1)
