"""What waits for a client that says no more, or at a stop, as under uvicorn's own protocol."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp, echo
from tests.uvicorn.cases import closing
from tests.uvicorn.fanout import descriptor_of
from tests.uvicorn.wire import answered, open_wire
from tests.uvicorn.witness import FANOUT, STOCK
from wshub import Connection, ConnectionManager, OutboxOptions
from wshub._link import EVICTION_GRACE
from wshub._sink import abort_transport, unsent_bytes_of
from wshub.testing import (
    HalfOpenClient,
    Opcode,
    RawClient,
    StalledClient,
    frame,
    live_server,
    until,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from wshub.testing import FakeClock

TEXT, CLOSE, PING, PONG = Opcode.TEXT, Opcode.CLOSE, Opcode.PING, Opcode.PONG


async def push(connection: Connection) -> None:
    """Send far more than the buffers take, all in one go."""
    for number in range(MANY):
        connection.send_nowait(f"{number:06}" * 100)
    await connection.receive()


async def flood(connection: Connection) -> None:
    """Send for ever."""
    while True:
        await connection.send(bytes(20_000))


MANY = 500
PUSHED = b"".join(answered(TEXT, b"%06d" % number * 100) for number in range(MANY))


async def test_a_client_that_says_no_more_gets_all_that_waits() -> None:
    """It shuts its side before it reads: what the transport and the outbox hold still comes."""
    managed = ManagedApp(push)
    async with (
        live_server(managed.app, ws=FANOUT, send_buffer=4096) as server,
        HalfOpenClient(f"{server.ws}/ws", receive_buffer=4096) as client,
    ):
        await until(lambda: managed.manager.statistics().queued > MANY / 2)
        client.shut()
        assert await client.read(len(PUSHED) + 1) == PUSHED
        await until(lambda: managed.outcomes)
    assert_all_sent(managed)


async def test_a_client_that_says_no_more_and_stalls_is_cut_off(fake_clock: FakeClock) -> None:
    """It has as long as any other that blocks a write."""
    managed = ManagedApp(push, ConnectionManager(clock=fake_clock))
    async with (
        live_server(managed.app, ws=FANOUT, send_buffer=4096) as server,
        HalfOpenClient(f"{server.ws}/ws", receive_buffer=4096) as client,
    ):
        await until(lambda: managed.manager.statistics().queued > MANY / 2)
        client.shut()
        await until(lambda: managed.opened[0]._link._sink.is_closing)
        await fake_clock.advance(OutboxOptions().send_timeout + EVICTION_GRACE)
        await until(lambda: server.connections == 0)
        await until(lambda: managed.outcomes)
    assert managed.manager.statistics().queued == 0
    assert fake_clock.waiting == 0


async def test_frames_go_past_a_transport_that_held_the_handshake() -> None:
    """As soon as a client has read that, and without anybody telling."""
    manager, connections = ConnectionManager(), list[Connection]()
    app = FastAPI()

    @app.websocket("/")
    async def accept(websocket: WebSocket) -> None:
        headers = [(b"x-long", b"x" * 60_000)]
        async with manager.connection(websocket, headers=headers) as connection:
            connections.append(connection)
            await connection.receive()

    async with (
        live_server(app, ws=FANOUT, send_buffer=4096) as server,
        RawClient(server.ws, wait=False, receive_buffer=4096) as client,
    ):
        await until(lambda: connections)
        assert descriptor_of(connections[0]) < 0
        head = await client.read(60_000)
        while not head.endswith(b"\r\n\r\n"):
            head += await client.read(1)
        await connections[0].send("hello")
        assert (await client.read_frame()).payload == b"hello"
        assert descriptor_of(connections[0]) >= 0


@asynccontextmanager
async def stopping(fake_clock: FakeClock) -> AsyncIterator[tuple[StalledClient, ManagedApp]]:
    """Stop a server that has much for a client which does not read."""
    managed = ManagedApp(push, ConnectionManager(clock=fake_clock))
    async with (
        live_server(managed.app, ws=FANOUT, send_buffer=4096) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        await until(lambda: managed.manager.statistics().queued > MANY / 2)
        server.uvicorn.should_exit = True
        await until(lambda: managed.opened[0].closed is not None)
        yield client, managed
        await until(lambda: server.connections == 0)


async def test_a_slow_client_gets_all_that_waits_before_1012(fake_clock: FakeClock) -> None:
    """A shutdown hands over what the outbox holds, and has patience with who goes on reading."""
    expected, received = PUSHED + answered(CLOSE, closing(1012)), b""
    async with stopping(fake_clock) as (client, managed):
        sink = managed.opened[0]._link._sink
        for _ in range(5):
            unsent = sink.unsent_bytes
            while sink.unsent_bytes == unsent:
                received += await client.read(1000)
                await asyncio.sleep(0)
            await fake_clock.advance(EVICTION_GRACE)
        received += await client.read(len(expected))
        assert received == expected
    assert_all_sent(managed)


async def test_a_slow_client_does_not_hold_up_a_shutdown(fake_clock: FakeClock) -> None:
    """It has as long as a close has for what is queued."""
    async with stopping(fake_clock) as (client, managed):
        sink = managed.opened[0]._link._sink
        for _ in range(int(OutboxOptions().send_timeout / EVICTION_GRACE)):
            unsent = sink.unsent_bytes
            assert unsent
            while sink.unsent_bytes == unsent:
                await client.read(1000)
                await asyncio.sleep(0)
            await fake_clock.advance(EVICTION_GRACE)


async def test_a_stalled_client_does_not_hold_up_a_shutdown(fake_clock: FakeClock) -> None:
    """Who reads nothing has a second."""
    async with stopping(fake_clock):
        await fake_clock.advance(EVICTION_GRACE)


@pytest.mark.parametrize("ws", [FANOUT, STOCK, "wsproto"])
async def test_a_stalled_client_over_tls_does_not_hold_up_a_shutdown(
    ws: str, certificate: tuple[str, ssl.SSLContext], fake_clock: FakeClock
) -> None:
    """The transport is dropped, though it cannot tell whether it holds anything."""
    path, context = certificate
    managed = ManagedApp(flood, ConnectionManager(clock=fake_clock))
    async with (
        live_server(managed.app, ws=ws, ssl_certfile=path, send_buffer=4096) as server,
        open_wire(f"{server.ws}/ws?", context=context),  # its buffers are full before long
    ):
        await until(lambda: managed.manager.statistics().queued > 20)
        server.uvicorn.should_exit = True
        await until(lambda: managed.opened[0].closed is not None)
        await fake_clock.advance(2 * EVICTION_GRACE)
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize("encrypts", [True, False])
def test_a_transport_for_tls_that_holds_nothing_may_hold_something(*, encrypts: bool) -> None:
    """What it has encrypted is out of its sight: it is dropped where another is done."""
    transport = mock.Mock(spec=asyncio.Transport)
    transport.get_extra_info.side_effect = {"sslcontext": object() if encrypts else None}.get
    transport.get_write_buffer_size.return_value = 0
    transport.is_closing.return_value = True
    assert unsent_bytes_of(transport) == encrypts
    abort_transport(transport)
    assert transport.abort.called == encrypts


@pytest.mark.parametrize("ws", [FANOUT, STOCK, "wsproto"])
async def test_a_close_over_tls_leaves_nothing_to_do(
    ws: str,
    certificate: tuple[str, ssl.SSLContext],
    fake_clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A look whether the client has read the last of it, long after it has, finds nothing."""
    path, context = certificate
    managed = ManagedApp(echo, ConnectionManager(clock=fake_clock))
    async with live_server(managed.app, ws=ws, ssl_certfile=path) as server:
        async with open_wire(f"{server.ws}/ws?", context=context) as wire:
            await wire.send(frame(TEXT, b"a") + frame(CLOSE, closing(1000)))
            await wire.read_to_the_end()
        await until(lambda: managed.outcomes)
        await until(lambda: server.connections == 0)
        await fake_clock.advance(OutboxOptions().send_timeout)
    assert "ERROR" not in caplog.text


def assert_all_sent(managed: ManagedApp) -> None:
    statistics = managed.manager.statistics()
    assert (statistics.sent, statistics.queued) == (MANY, 0)
    assert sum(statistics.dropped.values()) == sum(statistics.evicted.values()) == 0
