"""Peers that do not read, read slowly, leave or lie while frames are on their way to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp
from tests.uvicorn.fanout import (
    FANOUT,
    SEND_BUFFER,
    block,
    fill_to_the_brim,
    frames_to_the_end,
    frames_until,
    held_by,
    opened,
    protocol_of,
    serve,
)
from wshub import Connection, ConnectionManager, MessagesDropped, OutboxFull, OutboxOptions
from wshub.testing import (
    DeadClient,
    Opcode,
    RawClient,
    StalledClient,
    connect,
    frame,
    live_server,
    until,
)

if TYPE_CHECKING:
    from wshub.testing import FakeClock


async def hold(connection: Connection) -> None:
    """Receive until the end."""
    async for _ in connection:
        pass


async def test_send_waits_behind_what_was_broadcast_in_this_turn() -> None:
    """A peer that blocks just then is not evicted for what `send()` can wait with."""
    manager = ConnectionManager(outbox=OutboxOptions(max_bytes=5_000))
    managed = ManagedApp(hold, manager)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await fill_to_the_brim(connection)
        await manager.broadcast("a" * 2_000)
        await manager.broadcast("b" * 2_500)
        with pytest.raises(OutboxFull):
            connection.send_nowait("c" * 3_000)
        assert connection.closed is None
        sending = asyncio.create_task(connection.send("c" * 3_000))
        frames = await frames_until(client, lambda frame: frame.payload.startswith(b"c"))
        await sending
        texts = [frame.payload for frame in frames]
        assert texts[-3:] == [b"a" * 2_000, b"b" * 2_500, b"c" * 3_000]
    assert sum(manager.statistics().evicted.values()) == 0


async def test_every_ping_is_answered_once_the_peer_reads_on() -> None:
    """However many of them come in one segment while it does not: the last at least (§5.5.3)."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"1") + frame(Opcode.PING, b"2"))
        await client.send_bytes(frame(Opcode.TEXT, b"behind the pings"))
        await until(lambda: managed.manager.statistics().received)
        await frames_until(client, lambda frame: frame[:2] == (Opcode.PONG, b"2"))


async def test_pongs_for_a_peer_that_never_reads_do_not_pile_up() -> None:
    """What the transport holds does not grow with the pings that a stalled peer sends."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await block(connection)
        held = held_by(connection)
        for _ in range(50):
            await client.send_bytes(frame(Opcode.PING, b"p" * 100) * 100)
        await client.send_frame(Opcode.TEXT, b"behind the pings")
        await until(lambda: managed.manager.statistics().received)
        assert held_by(connection) <= held
        assert len(protocol_of(server)._late_pong) < 10_000


@pytest.mark.parametrize("pings", [0, 1, 2])
async def test_a_blocked_peer_that_closes_gets_the_answer_last(pings: int) -> None:
    """Pongs go before it, whether or not they came in one segment with the close frame."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await block(connection)
        close = frame(Opcode.CLOSE, (4000).to_bytes(2))
        await client.send_bytes(frame(Opcode.PING, b"?") * pings + close)
        await until(lambda: connection.closed)
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-pings - 1 :] == [Opcode.PONG] * pings + [Opcode.CLOSE]
    assert str(connection.closed) == "connection closed by the peer with 4000"


async def test_pongs_go_before_the_word_of_a_shutdown() -> None:
    """Behind a close frame nothing is sent, not even the answer to a ping."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"?") + frame(Opcode.TEXT, b"behind it"))
        await until(lambda: managed.manager.statistics().received)
        server.uvicorn.should_exit = True
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-2:] == [Opcode.PONG, Opcode.CLOSE]


async def test_pongs_go_before_the_close_frame_of_who_lies() -> None:
    """The same when the peer breaks the protocol."""
    managed = ManagedApp(hold)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"?") + frame(Opcode.TEXT, b"behind it"))
        await until(lambda: managed.manager.statistics().received)
        await client.send_bytes(b"\xff\xff")
        await until(lambda: connection.closed)
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-2:] == [Opcode.PONG, Opcode.CLOSE]


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


async def test_a_close_of_a_peer_that_dies_meanwhile_ends_at_once(fake_clock: FakeClock) -> None:
    """`close()` does not wait out `send_timeout` for a peer whose connection is lost."""
    managed = ManagedApp(hold, ConnectionManager(clock=fake_clock))
    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        async with StalledClient(f"{server.ws}/ws"):
            (connection,) = await opened(managed)
            await block(connection)
            closing = asyncio.create_task(connection.close(4000))
            await until(lambda: connection.closed)
        await closing
        await until(lambda: not server.connections)


@pytest.mark.parametrize("how", ["the peer closes", "the server stops"])
async def test_a_last_frame_that_the_socket_has_no_room_for(
    how: str, fake_clock: FakeClock
) -> None:
    """A peer that does not read it is dropped a second later, though nothing waited before it."""
    managed = ManagedApp(hold, ConnectionManager(clock=fake_clock))
    async with (
        serve(managed, send_buffer=SEND_BUFFER, timeout_graceful_shutdown=None) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await fill_to_the_brim(connection)
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


async def test_invalid_text_before_a_close_frame(caplog: pytest.LogCaptureFixture) -> None:
    """In one segment: the connection ends, and no error reaches the event loop."""
    managed = ManagedApp(hold)
    async with serve(managed) as server, RawClient(f"{server.ws}/ws") as client:
        await client.send_bytes(frame(Opcode.TEXT, b"\xff") + frame(Opcode.CLOSE, b"\x03\xe8"))
        assert (await client.read_frame()).opcode == Opcode.CLOSE
        assert await client.read(1) == b""
        await until(lambda: managed.outcomes == [None])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("blocks", [False, True])
async def test_who_answers_no_ping_of_the_server_is_dropped(*, blocks: bool) -> None:
    """Told so with 1011 if it reads, and at once if it does not; nothing of it is left."""
    managed = ManagedApp(hold)
    options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    async with (
        serve(managed, send_buffer=SEND_BUFFER, **options) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        if blocks:
            await block(connection)
        else:
            opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
            assert opcodes == [Opcode.PING, Opcode.CLOSE]
        await until(lambda: not server.connections)
        await until(lambda: managed.outcomes == [None])
    figures = managed.manager.statistics()
    assert (figures.queued, figures.dropped["closed"]) == (0, int(blocks))


async def test_what_the_transport_holds_when_a_manager_takes_over() -> None:
    """A client that reads it late is then served as any other, in order, and not cut off."""
    manager = ConnectionManager()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_text("x" * 500_000)
        async with manager.connection(websocket) as connection:
            await hold(connection)

    async with (
        live_server(app, ws=FANOUT, lifespan="off", send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        await until(lambda: manager.statistics().connections)
        await manager.broadcast("first")
        await manager.broadcast("second")
        frames = await frames_until(client, lambda frame: frame.payload == b"second")
        assert [len(frame.payload) for frame in frames] == [500_000, 5, 6]
        for number in range(3):
            await manager.broadcast(f"{number}")
            assert (await client.read_frame()).payload == f"{number}".encode()
        assert manager.statistics().queued == 0


# --- slow but steady


async def test_one_large_message_may_take_longer_than_send_timeout(fake_clock: FakeClock) -> None:
    """
    A peer that goes on reading is not cut off, however long it takes.

    Nor is it through ASGI, where a large message is out of sight once the server has taken it.
    """
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=8), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
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
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
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


async def test_a_slow_reader_gets_everything_at_a_stop(fake_clock: FakeClock) -> None:
    """What is queued for it comes before 1012, as long as it goes on reading; all is counted."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=100), clock=fake_clock)
    managed = ManagedApp(hold, manager)
    async with (
        serve(managed, send_buffer=SEND_BUFFER, timeout_graceful_shutdown=None) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
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
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
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
    async with (
        serve(managed, send_buffer=SEND_BUFFER, timeout_graceful_shutdown=None) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
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


# --- how much waits


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("bounds", [{"max_messages": 3}, {"max_bytes": 2_500}])
async def test_what_is_collected_in_a_turn_is_within_the_bounds(
    overflow: Literal["disconnect", "drop_oldest", "drop_newest"], bounds: dict[str, int]
) -> None:
    """A turn's broadcasts to a peer that blocks wait, or overflow, as one by one."""
    manager = ConnectionManager(outbox=OutboxOptions(overflow=overflow, **bounds))
    kept = min(bounds.get("max_messages", 10), bounds.get("max_bytes", 10_000) // 1000)
    managed = ManagedApp(hold, manager)
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        await fill_to_the_brim(connection)
        for number in range(10):
            await manager.broadcast(f"{number}" * 1000)
            outbox = connection.outbox
            assert outbox.messages <= bounds.get("max_messages", 10) + 1
            assert outbox.bytes <= bounds.get("max_bytes", 10_000)
        await asyncio.sleep(0)
        figures = manager.statistics()
        if overflow == "disconnect":
            assert connection.closed is not None
            assert figures.evicted["overflow"] == 1
            assert (figures.queued, sum(figures.dropped.values())) == (0, kept + 2)
            return
        assert (figures.queued, figures.dropped["overflow"]) == (kept + 1, 10 - kept - 1)
        numbers = range(1, 1 + kept) if overflow == "drop_newest" else range(10 - kept, 10)
        last = f"{numbers[-1]}".encode() * 1000
        frames = await frames_until(client, lambda frame: frame.payload == last)
        texts = [frame.payload[:1] for frame in frames if frame.opcode == Opcode.TEXT]
        assert texts == [b"0", *(f"{number}".encode() for number in numbers)]


async def test_messages_held_for_an_aborted_connection_are_not_sent() -> None:
    """Those that the transport holds, those queued behind, and those of this turn: all dropped."""
    managed = ManagedApp(hold)
    manager = managed.manager
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws"),
        StalledClient(f"{server.ws}/ws"),
    ):
        blocked, collecting = await opened(managed, 2)
        await fill_to_the_brim(blocked)
        for _ in range(3):
            await blocked.send("held")
        await until(lambda: blocked.outbox.messages == 3)
        await collecting.send("collected")
        blocked.abort()
        collecting.abort()
        figures = manager.statistics()
        assert (figures.sent, figures.dropped["closed"], figures.queued) == (0, 4, 0)
        await until(lambda: not server.connections)
        blocked.abort()  # a transport that has ended is left alone
        await manager.drain(timeout=5)


async def test_a_hook_that_sends_to_who_misses_messages(caplog: pytest.LogCaptureFixture) -> None:
    """It may fail, as any hook; every message is counted once."""
    sent = 0

    def tell(event: object) -> None:
        nonlocal sent
        if isinstance(event, MessagesDropped):
            event.connection.send_nowait("you missed something")
            sent += 1  # pragma: no cover  (if by chance there is room)

    options = OutboxOptions(max_messages=2, overflow="drop_oldest")
    managed = ManagedApp(hold, ConnectionManager(outbox=options, hooks=[tell]))
    manager = managed.manager
    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        async with StalledClient(f"{server.ws}/ws"):
            (connection,) = await opened(managed)
            await fill_to_the_brim(connection)
            for _ in range(6):
                await manager.broadcast("x" * 1000)
            await until(lambda: manager.statistics().dropped["overflow"])
        await until(lambda: not server.connections)
        figures = manager.statistics()
        assert figures.sent + sum(figures.dropped.values()) == figures.published + sent
        assert figures.queued == 0
    assert "OutboxFull" in caplog.text


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


# --- who comes and goes


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
