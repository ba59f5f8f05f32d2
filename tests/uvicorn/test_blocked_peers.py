"""Peers that do not read what is on its way to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from fastapi import WebSocket
from uvicorn.protocols.utils import ClientDisconnected

from tests.managed import ManagedApp, hold
from tests.uvicorn.fanout import (
    BLOCK,
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
    stalling,
)
from wshub import ConnectionManager, MessagesDropped, OutboxFull, OutboxOptions
from wshub.testing import (
    DeadClient,
    Opcode,
    StalledClient,
    frame,
    live_server,
    until,
)

if TYPE_CHECKING:
    from wshub import Connection
    from wshub.testing import FakeClock


async def test_send_waits_behind_what_was_broadcast_in_this_turn() -> None:
    """A peer that blocks just then is not evicted for what `send()` can wait with."""
    manager = ConnectionManager(outbox=OutboxOptions(max_bytes=5_000))
    managed = ManagedApp(hold, manager)
    async with stalling(managed) as (_, client, connection):
        fill_to_the_brim(connection)
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
    async with stalling(managed) as (_, client, connection):
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"1") + frame(Opcode.PING, b"2"))
        await client.send_bytes(frame(Opcode.TEXT, b"behind the pings"))
        await until(lambda: managed.manager.statistics().received)
        await frames_until(client, lambda frame: frame[:2] == (Opcode.PONG, b"2"))


async def test_pongs_for_a_peer_that_never_reads_do_not_pile_up() -> None:
    """What the transport holds does not grow with the pings that a stalled peer sends."""
    managed = ManagedApp(hold)
    async with stalling(managed) as (server, client, connection):
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
    async with stalling(managed) as (_, client, connection):
        await block(connection)
        close = frame(Opcode.CLOSE, (4000).to_bytes(2))
        await client.send_bytes(frame(Opcode.PING, b"?") * pings + close)
        await until(lambda: connection.closed)
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-pings - 1 :] == [Opcode.PONG] * pings + [Opcode.CLOSE]
    assert str(connection.closed) == "connection closed by the peer with 4000"


@pytest.mark.parametrize(
    "last", [frame(Opcode.CLOSE, (4000).to_bytes(2)), b"\xff\xff"], ids=["closes", "lies"]
)
async def test_a_pong_that_waits_goes_before_the_close_frame(last: bytes) -> None:
    """That which answers the peer's, and that for a peer that breaks the protocol."""
    managed = ManagedApp(hold)
    async with stalling(managed) as (_, client, connection):
        await block(connection)
        await client.send_bytes(frame(Opcode.PING, b"?") + frame(Opcode.TEXT, b"behind it"))
        await until(lambda: managed.manager.statistics().received)
        await client.send_bytes(last)
        await until(lambda: connection.closed)
        opcodes = [frame.opcode for frame in await frames_to_the_end(client)]
        assert opcodes[-2:] == [Opcode.PONG, Opcode.CLOSE]


@pytest.mark.parametrize("blocks", [False, True])
async def test_who_answers_no_ping_of_the_server_is_dropped(*, blocks: bool) -> None:
    """Told so with 1011 if it reads, and at once if it does not; nothing of it is left."""
    managed = ManagedApp(hold)
    options = {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    async with stalling(managed, **options) as (server, client, connection):
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


class PastTheManager:
    """
    An app that keeps the `send` that its server gave it, as a middleware may.

    Attributes:
        manager: Has every connection.
        opened: Every connection so far.
    """

    def __init__(self) -> None:
        self.manager = ConnectionManager()
        self.opened: list[Connection] = []
        self._sends: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self.manager.connection(WebSocket(scope, receive, send)) as connection:
            self._sends.append(send)
            self.opened.append(connection)
            await hold(connection)

    async def send(self, message: str) -> None:
        """Send a text past the manager."""
        await self._sends[-1]({"type": "websocket.send", "text": message})

    async def block(self) -> Connection:
        """Broadcast until four messages wait for the only client."""
        await until(lambda: self.opened)
        (connection,) = self.opened
        while connection.outbox.messages < 4:
            await self.manager.broadcast(BLOCK)
            await asyncio.sleep(0)
        return connection


@pytest.mark.parametrize("ws", [FANOUT, "websockets-sansio", "wsproto"])
async def test_what_goes_past_the_manager_leaves_behind_what_waits(ws: str) -> None:
    """Under uvicorn's own protocols it overtakes; the WebSocket's own `send_text()` never does."""
    app = PastTheManager()
    async with (
        live_server(app, ws=ws, lifespan="off", send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        connection = await app.block()
        async with asyncio.TaskGroup() as sends:
            sends.create_task(connection.websocket.send_text("own"))
            await until(lambda: connection.outbox.messages == 5)
            sends.create_task(app.send("past"))
            await asyncio.sleep(0)
            frames = await frames_until(client, lambda frame: frame.payload == b"own")
            if ws == FANOUT:
                frames.append(await client.read_frame())
        texts = [frame.payload for frame in frames if frame.payload != BLOCK.encode()]
        assert texts == ([b"own", b"past"] if ws == FANOUT else [b"past", b"own"])


async def test_what_goes_past_the_manager_to_a_peer_that_dies() -> None:
    """It waits no longer than the peer is there."""
    app = PastTheManager()
    async with (
        live_server(app, ws=FANOUT, lifespan="off", send_buffer=SEND_BUFFER) as server,
        DeadClient(f"{server.ws}/ws", receive_buffer=SEND_BUFFER) as client,
    ):
        await app.block()
        sending = asyncio.create_task(app.send("past"))
        await asyncio.sleep(0)
        client.die()
        with pytest.raises(ClientDisconnected):
            await sending


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("bounds", [{"max_messages": 3}, {"max_bytes": 2_500}])
async def test_what_is_collected_in_a_turn_is_within_the_bounds(
    overflow: Literal["disconnect", "drop_oldest", "drop_newest"], bounds: dict[str, int]
) -> None:
    """A turn's broadcasts to a peer that blocks wait, or overflow, as one by one."""
    options = OutboxOptions(
        overflow=overflow,
        max_messages=bounds.get("max_messages", 1024),
        max_bytes=bounds.get("max_bytes", 1024 * 1024),
    )
    manager = ConnectionManager(outbox=options)
    kept = min(bounds.get("max_messages", 10), bounds.get("max_bytes", 10_000) // 1000)
    managed = ManagedApp(hold, manager)
    async with stalling(managed) as (_, client, connection):
        fill_to_the_brim(connection)
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
        fill_to_the_brim(blocked)
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

    def tell(event: object) -> None:
        if isinstance(event, MessagesDropped):
            event.connection.send_nowait("you missed something")

    options = OutboxOptions(max_messages=2, overflow="drop_oldest")
    managed = ManagedApp(hold, ConnectionManager(outbox=options, hooks=[tell]))
    manager = managed.manager
    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        async with StalledClient(f"{server.ws}/ws"):
            (connection,) = await opened(managed)
            fill_to_the_brim(connection)
            for _ in range(6):
                await manager.broadcast("x" * 1000)
            await until(lambda: manager.statistics().dropped["overflow"])
        await until(lambda: not server.connections)
        figures = manager.statistics()
        assert figures.sent + sum(figures.dropped.values()) == figures.published
        assert figures.queued == 0
    assert "OutboxFull" in caplog.text


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
