"""Peers that read slowly or not at all: they delay nobody, and their memory is bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp, echo, hold
from wshub import ConnectionClosed, ConnectionManager, OutboxFull, OutboxOptions
from wshub.testing import Opcode, StalledClient, connect, live_server, until

if TYPE_CHECKING:
    from wshub import Connection
    from wshub.testing import FakeClock

BLOCK = "x" * 1_000_000
"""Larger than any socket buffer of these tests leaves room for twice."""


def managed_with(**options: object) -> ManagedApp:
    """An app whose outboxes have `options`."""
    return ManagedApp(hold, ConnectionManager(outbox=OutboxOptions(**options)))  # type: ignore[arg-type]


async def fill(connection: Connection) -> None:
    """Send until a peer that does not read blocks."""
    async with asyncio.timeout(10):
        while not connection.outbox.messages:
            await connection.send(BLOCK)
            for _ in range(5):  # event loops write to the socket a turn later
                await asyncio.sleep(0)


async def send_for_ever(connection: Connection) -> None:
    """Send until that raises."""
    async with asyncio.timeout(10):
        while True:
            await connection.send(BLOCK)


async def test_a_stalled_peer_does_not_delay_a_broadcast(ws: str) -> None:
    """Row 11: the tutorial's broadcast stops at the first peer that does not read."""
    managed = managed_with(max_messages=100, max_bytes=10**9)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        StalledClient(f"{server.ws}/ws"),
        connect(f"{server.ws}/ws", max_size=None) as healthy,
    ):
        await until(lambda: len(managed.opened) == 2)
        for _ in range(20):
            await manager.broadcast(BLOCK)
        for _ in range(20):
            assert await healthy.receive() == BLOCK
        stalled = managed.opened[0]
        assert stalled.outbox.messages > 0
        figures = manager.statistics()
        assert figures.queued == stalled.outbox.messages
        assert figures.sent + figures.queued == 40
        stalled.abort()
        figures = manager.statistics()
        assert (figures.sent + figures.dropped["closed"], figures.queued) == (40, 0)


@pytest.mark.parametrize(("count", "size"), [(3000, 64), (3000, 2000), (100, 100_000)])
async def test_a_burst_of_broadcasts_evicts_nobody_who_reads(
    ws: str, count: int, size: int
) -> None:
    """Promise 2: sockets get their turn while somebody broadcasts as fast as the loop allows."""
    managed = ManagedApp(hold)
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws", compression=None) as client,
    ):
        await until(lambda: managed.opened)
        for _ in range(count):
            await managed.manager.broadcast("x" * size)
        for _ in range(count):
            assert len(await client.receive()) == size
    assert sum(managed.manager.statistics().evicted.values()) == 0


async def test_a_personal_message_is_written_when_the_handler_returns(ws: str) -> None:
    """The tutorial's surface: what was sent before the handler returned is not lost."""
    manager = ConnectionManager()
    app = FastAPI()

    @app.websocket("/")
    async def send_and_return(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await websocket.receive_text()
        for _ in range(10):
            await manager.send_personal_message(BLOCK, websocket)
        await websocket.send_text("last")

    async with (
        live_server(app, ws=ws) as server,
        connect(server.ws, max_size=None, compression=None) as slow,
    ):
        await slow.send("go")
        slow.stop_reading()
        await until(lambda: manager.statistics().queued)
        slow.read_on()
        for _ in range(10):
            assert await slow.receive() == BLOCK
        assert await slow.receive() == "last"


# The deprecated implementation sees neither before it gives up by itself, after 20 seconds.
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_stalled_peer_does_not_hold_up_the_server(ws: str) -> None:
    """Need 9: uvicorn stops though a client reads nothing, with no limit set on its patience."""
    managed = managed_with()
    async with asyncio.timeout(8):
        async with (
            live_server(managed.app, ws=ws, timeout_graceful_shutdown=None) as server,
            StalledClient(f"{server.ws}/ws"),
        ):
            await until(lambda: managed.opened)
            await fill(managed.opened[0])
            server.uvicorn.should_exit = True
            await until(lambda: not server.connections)


# The deprecated implementation sees neither before it gives up by itself, after 20 seconds.
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_close_frame_that_only_reached_the_transport_is_not_waited_for(ws: str) -> None:
    """Bytes below the server's high-water mark keep no socket open for ever."""
    managed = managed_with(send_timeout=0.3)
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        transport = next(iter(server.uvicorn.server_state.connections)).transport
        while not transport.get_write_buffer_size():
            await stalled.send("x" * 5000)
            await asyncio.sleep(0)
        await stalled.close()
        await until(lambda: not server.connections)


# The deprecated implementation waits for an answer to its close frame first, and cancels handlers.
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_a_transport_that_has_ended_is_not_dropped_once_more(
    ws: str, fake_clock: FakeClock
) -> None:
    """A peer that reads the end after all has left when its time to do so is over."""
    managed = ManagedApp(hold, ConnectionManager(clock=fake_clock))
    async with (
        live_server(managed.app, ws=ws, send_buffer=4096) as server,
        StalledClient(f"{server.ws}/ws") as slow,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        transport = next(iter(server.uvicorn.server_state.connections)).transport
        while not transport.get_write_buffer_size():
            await connection.send("x" * 5000)
            await asyncio.sleep(0)
        server.uvicorn.should_exit = True
        await until(lambda: connection.closed)
        assert transport.get_write_buffer_size()
        while (await slow.read_frame()).opcode != Opcode.CLOSE:
            pass
        await until(lambda: not server.connections)
        await fake_clock.advance(10)


async def test_a_sender_waits_no_longer_than_send_timeout(ws: str) -> None:
    """A peer that drips keeps its socket, but not a sender, waiting."""
    managed = managed_with(send_timeout=0.2, max_messages=1)
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        await fill(stalled)
        with pytest.raises(ConnectionClosed):
            await asyncio.gather(*(stalled.send("waits") for _ in range(5)))


async def test_a_full_outbox_disconnects_by_default(ws: str) -> None:
    """A peer whose outbox overflows is cut off, gone at once, and counted."""
    managed = managed_with(max_messages=3)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        StalledClient(f"{server.ws}/ws"),
        connect(f"{server.ws}/ws", max_size=None) as healthy,
    ):
        await until(lambda: len(managed.opened) == 2)
        stalled = managed.opened[0]
        sent = 0
        while stalled.closed is None:
            await manager.broadcast(BLOCK)
            assert await healthy.receive() == BLOCK
            sent += 1
        assert stalled.websocket not in manager.active_connections
        assert (stalled.closed.code, stalled.closed.by) == (1013, "hub")
        figures = manager.statistics()
        assert figures.evicted == {"overflow": 1, "send_timeout": 0, "write_failed": 0}
        assert figures.sent + sum(figures.dropped.values()) == 2 * sent
        await until(lambda: managed.outcomes == [None])
        await until(lambda: server.connections == 1)


async def test_a_peer_that_blocks_too_long_is_cut_off(ws: str) -> None:
    """A peer that takes nothing for `send_timeout` is evicted; a waiting `send()` learns of it."""
    managed = managed_with(send_timeout=0.2, max_messages=1)
    manager = managed.manager
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        with pytest.raises(ConnectionClosed) as caught:
            await send_for_ever(stalled)
        assert (caught.value.code, caught.value.by) == (1013, "hub")
        assert manager.statistics().evicted["send_timeout"] == 1
        await until(lambda: managed.outcomes == [None])
        await until(lambda: not server.connections)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_overflow_can_drop_instead(ws: str, overflow: str) -> None:
    """With a drop policy a slow peer stays, and misses the oldest or the newest, counted."""
    managed = managed_with(max_messages=3, overflow=overflow)
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws", max_size=None, compression=None) as slow,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        slow.stop_reading()
        await fill(connection)
        blocked = managed.manager.statistics().sent + 1
        for number in range(10):
            await managed.manager.broadcast(str(number))
        assert managed.manager.statistics().dropped == {"overflow": 7, "closed": 0}
        slow.read_on()
        for _ in range(blocked):
            assert await slow.receive() == BLOCK
        kept = [await slow.receive() for _ in range(3)]
        assert kept == (["7", "8", "9"] if overflow == "drop_oldest" else ["0", "1", "2"])
        assert managed.manager.statistics().queued == 0


async def test_send_nowait_says_that_the_outbox_is_full(ws: str) -> None:
    """`send_nowait()` raises OutboxFull and leaves the connection open."""
    managed = managed_with(max_bytes=10)
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        stalled.send_nowait("fits")
        await fill(stalled)
        stalled.send_nowait("alone")
        with pytest.raises(OutboxFull, match="2 messages, 5 bytes wait") as caught:
            stalled.send_nowait("another")
        assert caught.value.connection_id == stalled.id
        assert stalled.closed is None
        stalled.abort()


async def test_waiting_senders_take_turns(ws: str) -> None:
    """Tasks that wait for room send in the order they came, and one may be cancelled."""
    managed = managed_with(max_messages=1)
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws", max_size=None, compression=None) as slow,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        slow.stop_reading()
        await fill(connection)
        blocked = managed.manager.statistics().sent + 1
        senders = [asyncio.create_task(connection.send(str(number))) for number in range(5)]
        await asyncio.sleep(0)
        assert [sender.done() for sender in senders] == [True, False, False, False, False]
        senders[2].cancel()
        slow.read_on()
        for _ in range(blocked):
            assert await slow.receive() == BLOCK
        assert [await slow.receive() for _ in range(4)] == ["0", "1", "3", "4"]
        await asyncio.wait(senders)
        assert [sender.cancelled() for sender in senders] == [False, False, True, False, False]


async def test_closing_a_stalled_peer_gives_up_in_time(ws: str) -> None:
    """Row 19 and need 10: `close()` of a peer that reads nothing ends, and frees the socket."""
    managed = managed_with(send_timeout=0.3)
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        await fill(stalled)
        stalled.send_nowait("waits")
        async with asyncio.timeout(5):
            await stalled.close(4000)
        await until(lambda: managed.outcomes == [None])
        await until(lambda: not server.connections)
    figures = managed.manager.statistics()
    assert (figures.queued, figures.dropped["closed"]) == (0, 2)


async def test_closing_sends_what_is_queued_first(ws: str) -> None:
    """What waits in the outbox of a slow peer arrives before the close frame."""
    managed = managed_with(max_messages=10, max_bytes=10**7)
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws", max_size=None, compression=None) as slow,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        slow.stop_reading()
        await fill(connection)
        blocked = managed.manager.statistics().sent + 1
        for message in (BLOCK, BLOCK, "queued"):
            await connection.send(message)
        closing = asyncio.create_task(connection.close(4000, "after all"))
        await until(lambda: connection.closed)
        await slow.send("meanwhile")
        await until(lambda: managed.manager.statistics().received == 1)
        slow.read_on()
        for _ in range(blocked + 2):
            assert await slow.receive() == BLOCK
        assert await slow.receive() == "queued"
        assert await slow.closed() == (4000, "after all")
        await closing
    assert managed.manager.statistics().unread == 1


async def test_a_handler_that_only_sends_starves_nobody(ws: str) -> None:
    """Need 32: a peer that reads as fast as the handler sends does not keep the loop to itself."""

    async def flood(connection: Connection) -> None:
        while not stop.is_set():
            await connection.send("more")

    stop = asyncio.Event()
    managed = ManagedApp(flood)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        for _ in range(200):
            assert await client.receive() == "more"
        stop.set()
        await until(lambda: managed.outcomes == [None])


async def test_a_handler_that_returns_does_not_wait_for_the_others(ws: str) -> None:
    """Two peers stall; evicting both leaves the server without connections."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(send_timeout=0.2)))
    async with (
        live_server(managed.app, ws=ws) as server,
        StalledClient(f"{server.ws}/ws"),
        StalledClient(f"{server.ws}/ws"),
    ):
        await until(lambda: len(managed.opened) == 2)
        for connection in managed.opened:
            await fill(connection)
        await until(lambda: managed.outcomes == [None, None])
        await until(lambda: not server.connections)
    assert managed.manager.statistics().evicted["send_timeout"] == 2


@pytest.mark.parametrize(
    "options",
    [
        {"max_messages": 0},
        {"max_bytes": -1},
        {"send_timeout": 0.0},
        {"flush_interval": -0.1},
        {"compress_from": -1},
        {"overflow": "explode"},
    ],
)
def test_impossible_bounds_are_refused(options: dict[str, object]) -> None:
    """A bound that is out of range, or an unknown policy, is a ValueError that names it."""
    with pytest.raises(ValueError, match=next(iter(options))):
        OutboxOptions(**options)  # type: ignore[arg-type]


def test_reading_ahead_needs_at_least_one_message() -> None:
    """A read-ahead of nothing would never read."""
    with pytest.raises(ValueError, match="read_ahead must be at least 1"):
        ConnectionManager(read_ahead=0)
