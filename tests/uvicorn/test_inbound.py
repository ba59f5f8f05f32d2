"""What comes in: read ahead as far as there is room, in order, and all of it counted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.managed import Late, ManagedApp
from tests.uvicorn.fanout import frames_to_the_end, opened, protocol_of, serve
from wshub import Heartbeat, Limits, OutboxOptions
from wshub.testing import Opcode, RawClient, connect, frame, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fastapi import FastAPI

    from wshub import Connection
    from wshub.testing import FakeClock


async def test_reading_stops_ahead_of_the_handler_and_goes_on_behind_it() -> None:
    """At `read_ahead` messages, and not before more comes than that; none is lost or moved."""
    app = Late(read_ahead=4)
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(app.managed)
        for number in range(4):
            await client.send_frame(Opcode.TEXT, b"%d" % number)
        await until(lambda: app.manager.statistics().received == 4)
        protocol = protocol_of(server)
        assert not protocol.read_paused
        await client.send_frame(Opcode.TEXT, b"4")
        await until(lambda: protocol.read_paused)
        assert not protocol.transport.is_reading()
        assert app.manager.statistics().received == 4
        for number in range(5, 3000):
            await client.send_frame(Opcode.TEXT, b"%d" % number)
        await asyncio.sleep(0.01)
        assert app.manager.statistics().received == 4
        for count in (1, 2, 7, 100, 2890):
            app.receive(count)
            await until(lambda: len(app.got) >= count)  # noqa: B023
        await until(lambda: len(app.got) == 3000)
        assert app.got == [str(number) for number in range(3000)]
        assert protocol.transport.is_reading()
        app.receive(1)
    figures = app.manager.statistics()
    assert (figures.received, figures.unread) == (3000, 0)


async def test_what_waits_behind_read_ahead_is_received_after_the_end() -> None:
    """A client that leaves is seen once there is room for what it sent before."""
    app = Late(read_ahead=4)
    async with serve(app.managed) as server:
        async with connect(f"{server.ws}/ws") as client:
            (connection,) = await opened(app.managed)
            for number in range(20):
                await client.send(f"{number}")
            await until(lambda: protocol_of(server).read_paused)
            closing = asyncio.create_task(client.close(4000))
            await asyncio.sleep(0.01)
            assert connection.closed is None
            app.receive(21)
            await closing
        await until(lambda: app.managed.outcomes == [None])
        assert app.got == [str(number) for number in range(20)]
        assert str(connection.closed) == "connection closed by the peer with 4000"
    assert app.manager.statistics().unread == 0


async def test_a_stop_while_a_close_frame_is_unread() -> None:
    """It is in nobody's way: other clients are told to come back, and uvicorn stops."""
    app = Late(read_ahead=4)
    stopped = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        stopped.set()

    app.managed.app.router.lifespan_context = lifespan
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as hasty:
        await opened(app.managed)
        messages = frame(Opcode.TEXT, b"x" * 1000) * 10
        await hasty.send_bytes(messages + frame(Opcode.CLOSE, (4000).to_bytes(2)))
        await until(lambda: protocol_of(server).read_paused)
        async with connect(f"{server.ws}/ws") as bystander:
            await opened(app.managed, 2)
            server.uvicorn.should_exit = True
            assert (await bystander.closed())[0] == 1012
        await asyncio.wait_for(stopped.wait(), 10)


async def test_who_is_not_read_is_not_asked_for_a_sign_of_life() -> None:
    """Its pong is behind what the handler has not taken; once that is read it may be dropped."""
    app = Late(read_ahead=4)
    options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    async with serve(app.managed, **options) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(app.managed)
        await client.send_bytes(frame(Opcode.TEXT, b"x") * 6)
        for _ in range(3):
            assert (await client.read_frame()).opcode == Opcode.PING
        assert protocol_of(server).read_paused
        app.receive(6)
        assert (await frames_to_the_end(client))[-1].opcode == Opcode.CLOSE
    assert len(app.got) == 6


async def test_a_message_in_many_pieces_is_one_in_memory() -> None:
    """Empty ones take nothing, however many they are."""
    app = Late()
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(app.managed)
        app.receive(2)
        for opcode, whole in ((Opcode.TEXT, "ab"), (Opcode.BINARY, b"ab")):
            await client.send_frame(opcode, b"a", fin=False)
            await client.send_bytes(frame(Opcode.CONTINUATION, b"", fin=False) * 10_000)
            await client.send_frame(Opcode.PING)
            assert (await client.read_frame()).opcode == Opcode.PONG
            assert len(protocol_of(server).frames) == 1
            await client.send_frame(Opcode.CONTINUATION, b"b")
            await until(lambda: app.got[-1:] == [whole])  # noqa: B023
    assert app.got == ["ab", b"ab"]


async def test_an_end_is_seen_behind_a_full_inbox() -> None:
    """A client that has sent no more than there is room for may leave unseen by nobody."""
    app = Late(read_ahead=4)
    async with serve(app.managed) as server:
        async with connect(f"{server.ws}/ws") as client:
            (connection,) = await opened(app.managed)
            for number in range(4):
                await client.send(f"{number}")
        await until(lambda: connection.closed)
        app.receive(5)
        await until(lambda: app.managed.outcomes == [None])
    assert app.got == ["0", "1", "2", "3"]


@pytest.mark.parametrize("how", ["close", "abort", "lost"])
async def test_what_was_not_received_is_counted(how: str) -> None:
    """Of what was read ahead, and of what waited behind it."""
    app = Late(read_ahead=4)
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        (connection,) = await opened(app.managed)
        await client.send_bytes(b"".join(frame(Opcode.TEXT, b"%d" % n) for n in range(30)))
        await until(lambda: protocol_of(server).read_paused)
        if how == "close":
            closing = asyncio.create_task(connection.close(4000))
            await client.send_frame(Opcode.CLOSE, (4000).to_bytes(2))
            await closing
        elif how == "abort":
            connection.abort()
        else:
            protocol_of(server).transport.abort()
            await until(lambda: connection.closed)
        app.receive(31)
        await until(lambda: app.managed.outcomes == [None])
        await until(lambda: not server.connections)
    figures = app.manager.statistics()
    assert (figures.received, figures.received - figures.unread) == (30, len(app.got))
    assert len(app.got) == (30 if how == "lost" else 0)


async def test_room_for_a_small_message_is_not_room_for_a_large_one() -> None:
    """Reading goes on once what waits is below `max_bytes`, not with each message taken."""
    app = Late(outbox=OutboxOptions(max_bytes=10_000))
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(app.managed)
        sizes = (10, 20_000, 10, 10)
        await client.send_bytes(b"".join(frame(Opcode.BINARY, bytes(size)) for size in sizes))
        await until(lambda: protocol_of(server).read_paused)
        app.receive(1)
        await until(lambda: len(app.got) == 1)
        assert protocol_of(server).read_paused
        app.receive(3)
        await until(lambda: [len(data) for data in app.got] == [10, 20_000, 10, 10])
        assert not protocol_of(server).read_paused


async def test_large_messages_stop_reading_too() -> None:
    """At `max_bytes` of the outbox; a message may be larger than that."""
    app = Late(outbox=OutboxOptions(max_bytes=10_000))
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(app.managed)
        sending = asyncio.create_task(client.send_bytes(frame(Opcode.BINARY, bytes(30_000)) * 100))
        await until(lambda: protocol_of(server).read_paused)
        assert app.manager.statistics().received == 1
        app.receive(100)
        await sending
        await until(lambda: len(app.got) == 100)


# --- what watches


async def test_limits_hold_for_what_is_pushed(fake_clock: FakeClock) -> None:
    """A flood ends with 1008, counted, in the middle of one read."""
    limits = Limits(messages_per_second=10, burst=1)
    app = Late(limits=limits, clock=fake_clock)
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        (connection,) = await opened(app.managed)
        await client.send_bytes(frame(Opcode.TEXT, b"more") * 2000)
        last = await client.read_frame()
        assert (last.opcode, last.payload[:2]) == (Opcode.CLOSE, (1008).to_bytes(2))
        await client.send_frame(Opcode.CLOSE, (1008).to_bytes(2))
        await until(lambda: connection.closed)
        app.receive(1)
        await until(lambda: not server.connections)
    figures = app.manager.statistics()
    assert figures.limited["messages_per_second"] >= 1
    assert figures.received == figures.unread


async def test_a_message_over_the_limit(fake_clock: FakeClock) -> None:
    """It closes with 1009."""
    app = Late(limits=Limits(message_bytes=100), clock=fake_clock)
    async with serve(app.managed) as server, connect(f"{server.ws}/ws") as client:
        await opened(app.managed)
        await client.send("x" * 101)
        assert await client.closed() == (1009, "message too big")
        app.receive(1)


async def test_heartbeats_and_idleness(fake_clock: FakeClock) -> None:
    """Replies keep a client and reach no handler; one that is silent is closed with 3008."""
    app = Late(
        heartbeat=Heartbeat(interval=10, message="beat", reply="here"),
        idle_timeout=25,
        clock=fake_clock,
    )
    async with serve(app.managed) as server, connect(f"{server.ws}/ws") as client:
        await opened(app.managed)
        for _ in range(10):
            await fake_clock.advance(10)
            assert await client.receive() == "beat"
            await client.send("here")
            received = app.manager.statistics().received
            await client.send("something")
            await until(lambda: app.manager.statistics().received > received)  # noqa: B023
        app.receive(10)
        await until(lambda: len(app.got) == 10)
        assert set(app.got) == {"something"}
        await fake_clock.advance(30)
        app.receive(1)
        assert (await client.closed())[0] == 3008


async def test_who_waits_for_the_handler_is_not_idle(fake_clock: FakeClock) -> None:
    """What it says may be behind what nobody receives."""
    app = Late(read_ahead=2, idle_timeout=10, clock=fake_clock)
    async with serve(app.managed) as server, connect(f"{server.ws}/ws") as client:
        (connection,) = await opened(app.managed)
        for number in range(5):
            await client.send(f"{number}")
        await until(lambda: protocol_of(server).read_paused)
        await fake_clock.advance(100)
        assert connection.closed is None
        app.receive(5)
        await until(lambda: len(app.got) == 5)
        await fake_clock.advance(9)
        assert connection.closed is None
        app.receive(1)
        await fake_clock.advance(1)
        assert (await client.closed())[0] == 3008


async def test_a_limit_that_is_reached_behind_a_full_inbox() -> None:
    """By what came in one segment with the peer's close frame: it ends, and all is counted."""
    limits = Limits(messages_per_second=5, burst=1)
    app = Late(read_ahead=3, limits=limits)
    async with serve(app.managed) as server, RawClient(f"{server.ws}/ws") as client:
        (connection,) = await opened(app.managed)
        await client.send_bytes(frame(Opcode.TEXT, b"more") * 30 + frame(Opcode.CLOSE))
        await until(lambda: connection.closed)
        app.receive(30)
        assert (await client.read_frame()).opcode == Opcode.CLOSE
        await until(lambda: not server.connections)
    figures = app.manager.statistics()
    assert (figures.received, figures.unread + len(app.got)) == (30, 30)
    assert figures.limited["messages_per_second"] >= 1


# --- who else looks


async def test_an_end_is_seen_while_the_handler_is_busy() -> None:
    """Promise 2: without a task that reads."""
    busy = asyncio.Event()

    async def work(connection: Connection) -> None:
        await busy.wait()

    managed = ManagedApp(work)
    async with serve(managed) as server:
        before = asyncio.all_tasks()
        async with connect(f"{server.ws}/ws"):
            (connection,) = await opened(managed)
            names = [task.get_name() for task in asyncio.all_tasks() - before]
            assert not any("reader" in name for name in names)
        await until(lambda: connection.closed)
        busy.set()
        await until(lambda: managed.outcomes == [None])
    assert managed.manager.statistics().connections == 0
