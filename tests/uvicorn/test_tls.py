"""TLS: a transport that sees less of what it holds, and tells of the end in its own way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.fanout import FANOUT, SEND_BUFFER, block, descriptor_of, held_by, opened, serve
from tests.uvicorn.wire import open_wire
from wshub import ConnectionManager, Limits, OutboxOptions
from wshub.testing import Opcode, connect, frame, live_server, until

if TYPE_CHECKING:
    import ssl

    from wshub import Connection
    from wshub.testing import FakeClock


@pytest.mark.parametrize("end", ["closes", "is closed", "is aborted", "stops reading", "is reset"])
async def test_it_ends_over_tls_as_without(
    end: str,
    certificate: tuple[str, ssl.SSLContext],
    fake_clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is written past what encrypts, and a transport that has ended is left alone."""
    managed = ManagedApp(hear_nothing, ConnectionManager(clock=fake_clock))
    path, context = certificate
    async with serve(managed, ssl_certfile=path) as server:
        url = f"wss://localhost:{server.port}/ws"
        async with connect(url, ssl=context, compression=None, max_size=None) as client:
            (connection,) = await opened(managed)
            await managed.manager.broadcast("hello")
            assert await client.receive() == "hello"
            assert descriptor_of(connection) == -1
            if end == "closes":
                await client.close(4000)
            elif end == "is closed":
                await connection.close(4000)
                assert (await client.closed())[0] == 4000
            elif end == "is aborted":
                connection.abort()
            elif end == "is reset":
                client.reset()
            else:
                client.stop_reading()
                await block(connection, "x" * 20_000_000)  # more than systems ever take in
                closing = asyncio.create_task(connection.close(4000))
                await fake_clock.advance(10)
                await closing
            await until(lambda: managed.outcomes == [None])
            await until(lambda: not server.connections)
            connection.abort()
            await fake_clock.advance(20)
        await managed.manager.drain(timeout=5)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    figures = managed.manager.statistics()
    assert (figures.queued, figures.dropped["closed"]) == (0, end == "stops reading")


async def test_a_message_over_tls_may_be_longer_than_what_the_transport_takes(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """What is put meanwhile waits, and comes in order."""
    managed = ManagedApp(hear_nothing)
    path, context = certificate
    async with serve(managed, ssl_certfile=path) as server:
        url = f"wss://localhost:{server.port}/ws"
        async with connect(url, ssl=context, compression=None, max_size=None) as client:
            (connection,) = await opened(managed)
            client.stop_reading()
            await block(connection, "x" * 5_000_000)
            blocked = managed.manager.statistics().sent + 1
            for number in range(10):
                await managed.manager.broadcast(f"{number}")
            assert connection.outbox.messages == 11
            client.read_on()
            for _ in range(blocked):
                assert len(await client.receive()) == 5_000_000
            assert [await client.receive() for _ in range(10)] == [f"{n}" for n in range(10)]
        await until(lambda: not server.connections)
    assert managed.manager.statistics().sent == blocked + 10


@pytest.mark.parametrize("ws", [FANOUT, "websockets-sansio", "wsproto"])
async def test_who_leaves_over_tls_before_it_was_accepted(
    ws: str, certificate: tuple[str, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    """Its seat is free again, and no error is left."""
    path, context = certificate
    gate = asyncio.Event()
    managed = ManagedApp(hear_nothing, ConnectionManager(limits=Limits(connections=1)))

    async def call_late(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"] == b"late":
            await gate.wait()
        await managed.app(scope, receive, send)

    async with live_server(call_late, ws=ws, ssl_certfile=path, lifespan="off") as server:
        url = f"wss://localhost:{server.port}/ws"
        async with open_wire(f"{url}?late", context=context, wait=False, polite=True):
            await until(lambda: len(server.uvicorn.server_state.tasks) == 1)
        await until(lambda: server.connections == 0)
        gate.set()
        await until(lambda: not server.uvicorn.server_state.tasks)
        before = len(managed.opened)
        async with connect(url, ssl=context) as client:
            await opened(managed, before + 1)
            await client.close()
        await until(lambda: server.connections == 0)
    assert managed.manager.statistics().connections == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_who_leaves_over_tls_with_much_unread(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """What came before its end is received, and the end is its own."""
    path, context = certificate
    go_on, got = asyncio.Event(), 0

    async def receive_late(connection: Connection) -> None:
        nonlocal got
        await go_on.wait()
        async for _ in connection:
            got += 1
            await asyncio.sleep(0.001)  # and so the end is seen before the last is received

    managed = ManagedApp(receive_late)
    async with serve(managed, ssl_certfile=path) as server:
        url = f"wss://localhost:{server.port}/ws"
        async with open_wire(f"{url}?", context=context, polite=True) as wire:
            messages = frame(Opcode.TEXT, b"x" * 100) * 300
            await wire.send(messages + frame(Opcode.CLOSE, (4000).to_bytes(2)))
            wire.leave()
            await until(lambda: managed.manager.statistics().received >= 64)
            go_on.set()
        await until(lambda: managed.outcomes == [None])
        await until(lambda: server.connections == 0)
    (connection,) = managed.opened
    assert got == 300
    assert connection.closed is not None
    assert (connection.closed.code, connection.closed.by) == (4000, "peer")


async def test_a_slow_reader_over_tls_gets_everything_at_a_stop(
    certificate: tuple[str, ssl.SSLContext], fake_clock: FakeClock
) -> None:
    """What is encrypted already, out of the transport's sight, is waited for as anything else."""
    path, context = certificate
    outbox = OutboxOptions(send_timeout=100, max_bytes=10_000_000)
    manager = ConnectionManager(outbox=outbox, clock=fake_clock)
    managed = ManagedApp(hear_nothing, manager)
    options = {"ssl_certfile": path, "send_buffer": SEND_BUFFER, "timeout_graceful_shutdown": None}
    async with serve(managed, **options) as server:
        url = f"wss://localhost:{server.port}/ws?"
        async with open_wire(url, context=context, receive_buffer=SEND_BUFFER) as wire:
            (connection,) = await opened(managed)
            for number in range(40):
                await manager.broadcast(f"{number:02}" * 50_000)
            await until(lambda: held_by(connection))
            server.uvicorn.should_exit = True
            await until(lambda: managed.outcomes == [None])
            sink = connection._link._sink
            held = sink.unsent_bytes
            for _ in range(40):
                await wire.read_frames(1)
                if sink.unsent_bytes < held or not sink.shows_progress:
                    await fake_clock.advance(1)
                    held = sink.unsent_bytes
            await wire.read_frames(1)
            assert wire.received.endswith((1012).to_bytes(2))
        await until(lambda: not server.connections)
