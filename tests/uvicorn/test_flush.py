"""What is put in a turn leaves together: in order, within the bounds, and counted."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.fanout import (
    FANOUT,
    descriptor_of,
    frames_to_the_end,
    opened,
    protocol_of,
    serve,
    watched_writes,
)
from tests.uvicorn.wires import Network
from wshub import ConnectionManager, OutboxOptions
from wshub._flush import TURN
from wshub._frames import encode_frame
from wshub.testing import HalfOpenClient, Opcode, RawClient, connect, frame, live_server, until

if TYPE_CHECKING:
    from wshub import Connection
    from wshub.testing import FakeClock

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def text(message: str) -> bytes:
    """Return a frame as a server sends it."""
    return frame(Opcode.TEXT, message.encode(), mask=False)


# --- on the wire


async def test_all_of_a_turn_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broadcasts, personal messages and the WebSocket's own, in the order of their calls."""
    managed = ManagedApp(hear_nothing)
    manager = managed.manager
    async with serve(managed) as server, connect(f"{server.ws}/ws", compression=None) as client:
        (connection,) = await opened(managed)
        descriptor = descriptor_of(connection)
        with watched_writes(monkeypatch) as writes:
            await manager.broadcast("1")
            await connection.send("2")
            await connection.websocket.send_text("3")
            connection.send_nowait("4")
            await manager.send_personal_message("5", connection.websocket)
            await manager.broadcast("6")
            assert writes.to(descriptor) == []
            assert [await client.receive() for _ in range(6)] == list("123456")
        assert writes.to(descriptor) == [b"".join(map(text, "123456"))]
    assert manager.statistics().sent == 6


async def test_what_was_sent_in_a_turn_leaves_before_the_close_frame() -> None:
    """In the order of the calls, also when the handler returns in this turn."""

    async def say_and_go(connection: Connection) -> None:
        await managed.manager.broadcast("1")
        await connection.send("2")
        await connection.websocket.send_text("3")

    managed = ManagedApp(say_and_go)
    async with serve(managed) as server, RawClient(f"{server.ws}/ws") as client:
        received = [await client.read_frame() for _ in range(4)]
        assert [one.payload for one in received] == [b"1", b"2", b"3", (1000).to_bytes(2)]


async def test_the_tutorials_handler_may_return_at_once() -> None:
    """What it has sent leaves before the server closes, though nothing closes the connection."""
    manager, app = ConnectionManager(), FastAPI()

    @app.websocket("/ws")
    async def say_and_go(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await manager.broadcast("1")
        await websocket.send_text("2")

    async with live_server(app, ws=FANOUT) as server, RawClient(f"{server.ws}/ws") as client:
        assert [(await client.read_frame()).payload for _ in range(2)] == [b"1", b"2"]
        assert await client.read(1) == b""


async def test_what_was_sent_in_a_turn_leaves_before_what_goes_past_the_manager() -> None:
    """As a middleware may send, with the `send` that the server gave it."""
    manager = ConnectionManager()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with manager.connection(WebSocket(scope, receive, send)):
            await manager.broadcast("1")
            await send({"type": "websocket.send", "text": "2"})

    async with (
        live_server(app, ws=FANOUT, lifespan="off") as server,
        RawClient(f"{server.ws}/ws") as client,
    ):
        assert [(await client.read_frame()).payload for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("end", [b"\x88\x80\0\0\0\0", b"\xff\xff", None])
async def test_what_was_sent_in_a_turn_leaves_before_the_peer_is_answered(
    end: bytes | None,
) -> None:
    """Its close frame, an error of its own, and the end of what it sends."""
    managed = ManagedApp(hear_nothing)
    async with serve(managed) as server, HalfOpenClient(f"{server.ws}/ws") as client:
        (connection,) = await opened(managed)
        protocol = protocol_of(server)
        await managed.manager.broadcast("last")
        if end is None:
            protocol.eof_received()
            protocol.transport.close()
        else:
            protocol.data_received(end)
        assert (await client.read_frame()).payload == b"last"
        if end is not None:
            assert (await client.read_frame()).opcode == Opcode.CLOSE
        await until(lambda: connection.closed)
    assert managed.manager.statistics().sent == 1


async def test_nothing_follows_the_answer_to_a_close_frame() -> None:
    """Also if that leaves together with the answer to a ping before it (RFC 6455 §5.5.1)."""
    managed = ManagedApp(hear_nothing)
    async with serve(managed) as server, RawClient(f"{server.ws}/ws") as client:
        await opened(managed)
        await managed.manager.broadcast("last")
        protocol_of(server).data_received(frame(Opcode.PING) + frame(Opcode.CLOSE))
        opcodes = [found.opcode for found in await frames_to_the_end(client)]
    assert opcodes == [Opcode.TEXT, Opcode.PONG, Opcode.CLOSE]


async def test_an_error_in_a_turn_is_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who was not written to because of it is in the next one."""

    def fail(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        raise MemoryError

    managed = ManagedApp(hear_nothing)
    async with serve(managed) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(f"{server.ws}/ws")) for _ in range(3)]
        await opened(managed, 3)
        await managed.manager.broadcast("a")
        monkeypatch.setattr(os, "write", fail)
        await until(lambda: os.write is not fail)
        await managed.manager.broadcast("b")
        got = [(await client.read_frame()).payload for client in clients]
    assert sorted(got) == [b"a", b"a", b"b"]
    assert "MemoryError" in caplog.text


def note_frames(monkeypatch: pytest.MonkeyPatch) -> list[str | bytes]:
    """Return a list of what is made a frame of, which grows."""
    framed: list[str | bytes] = []

    def note(data: str | bytes, form: Any) -> bytes:
        framed.append(data)
        return encode_frame(data, form)

    monkeypatch.setattr("wshub.messages.encode_frame", note)
    return framed


async def test_a_broadcast_is_framed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipients get the very same bytes, also of several messages in one turn."""
    framed = note_frames(monkeypatch)
    managed = ManagedApp(hear_nothing)
    async with serve(managed) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(f"{server.ws}/ws")) for _ in range(10)]
        await opened(managed, 10)
        with watched_writes(monkeypatch) as writes:
            await managed.manager.broadcast("a")
            await managed.manager.broadcast("b")
            for client in clients:
                assert await client.read(6) == text("a") + text("b")
        assert framed == ["a", "b"]
        assert len(writes.made) == 10
        assert len({id(data) for _, data in writes.made}) == 1


async def test_a_broadcast_is_framed_once_whatever_leaves_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was sent something else in the same turn gets both in one write."""
    framed = note_frames(monkeypatch)
    managed = ManagedApp(hear_nothing)
    async with (
        serve(managed) as server,
        RawClient(f"{server.ws}/ws") as ann,
        RawClient(f"{server.ws}/ws") as ben,
    ):
        await opened(managed, 2)
        with watched_writes(monkeypatch) as writes:
            await managed.opened[0].send("for one")
            await managed.manager.broadcast("for both")
            for client in (ann, ben):
                await client.read(len(text("for both")))
        assert framed == ["for one", "for both"]
        assert len(writes.made) == 2


async def test_flush_interval_collects_for_longer(
    monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock
) -> None:
    """What is sent within it leaves in one write, a close at once."""
    outbox = OutboxOptions(flush_interval=0.5)
    managed = ManagedApp(hear_nothing, ConnectionManager(outbox=outbox, clock=fake_clock))
    async with (
        serve(managed) as server,
        RawClient(f"{server.ws}/ws") as client,
        RawClient(f"{server.ws}/ws") as other,
    ):
        first, second = await opened(managed, 2)
        descriptor = descriptor_of(first)
        with watched_writes(monkeypatch) as writes:
            await managed.manager.broadcast("1")
            await fake_clock.advance(0.25)
            await managed.manager.broadcast("2")
            await fake_clock.advance(0.125)
            assert writes.made == []
            await fake_clock.advance(0.125)
            assert writes.to(descriptor) == [text("1") + text("2")]
            await managed.manager.broadcast("3")
            await fake_clock.advance(0.25)
            closing = asyncio.create_task(second.close(4000))
            assert (await other.read(9)) == b"".join(map(text, "123"))
            assert (await other.read_frame()).opcode == Opcode.CLOSE
            assert len(writes.to(descriptor)) == 1
            await fake_clock.advance(0.25)
            assert await client.read(9) == b"".join(map(text, "123"))
            await closing


# --- how much at a time


@pytest.mark.parametrize("size", [200, 20_000, 70_000])
async def test_who_sends_without_a_pause_postpones_nothing(size: int) -> None:
    """A batch is limited in messages and bytes; what is full leaves in the middle of a turn."""
    network = Network(OutboxOptions(flush_interval=1000.0), 2)
    with network.connected():
        for _ in range(100):
            network.broadcast(size)
            for peer in network.peers:
                assert peer.outbox.pending is not None
                assert peer.outbox.pending.count <= 64
                assert peer.outbox.pending.size <= 64 * 1024 or peer.outbox.pending.count == 1
        assert network.counters.sent >= 2 * (100 - 64)
        for peer in network.peers:
            peer.outbox.flush()
            assert peer.wire.messages == peer.outbox.noted
    assert network.writes >= 2 * 100 / 64 - 2


async def test_so_many_peers_are_written_to_in_a_turn() -> None:
    """Sockets that are waiting get one in between, however many recipients there are."""
    network = Network(OutboxOptions(), 2 * TURN + 10)
    with network.connected():
        network.broadcast()
        network.broadcast()
        await asyncio.sleep(0)
        assert network.writes == TURN
        network.broadcast()
        await asyncio.sleep(0)
        assert network.writes == 2 * TURN
        await asyncio.sleep(0)
        assert network.writes == 2 * TURN + TURN
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all(peer.wire.messages == [1, 2, 3] for peer in network.peers)
        assert network.counters.sent == 3 * len(network.peers)


async def test_a_turn_lets_go_of_its_messages() -> None:
    """A large message is not kept until the next."""
    network = Network(OutboxOptions(), 2)
    with network.connected():
        network.broadcast(100_000)
        await asyncio.sleep(0)
        assert network.flush.empty._following is None
        network.peers[0].wire.room = 0
        for _ in range(3):
            network.broadcast(100_000)
        await asyncio.sleep(0)
        network.peers[0].wire.give_room(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert network.counters.queued == 0
        assert network.flush.empty._following is None


@pytest.mark.parametrize("io_uring", [False, True])
@pytest.mark.parametrize("when", ["written to", "waited for"])
@pytest.mark.usefixtures("few")
async def test_a_peer_that_is_lost(when: str, *, io_uring: bool) -> None:
    """It is evicted, and what it did not get is counted."""
    network = Network(OutboxOptions(io_uring=io_uring), 2)
    lost, other = network.peers
    with network.connected():
        if when == "waited for":
            lost.wire.room = 0
            network.broadcast()
            await asyncio.sleep(0)
            lost.wire.lose()
        else:
            lost.wire.is_lost = True
            network.broadcast()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (lost.evicted, other.evicted) == (["write_failed"], [])
        assert other.wire.messages == [1]
        assert (network.counters.sent, network.counters.dropped["closed"]) == (1, 1)
        assert (network.rings == 1) == io_uring


async def test_what_waits_is_poured_behind_what_the_transport_holds() -> None:
    """At a stop; whoever waits for the one is told once both have left."""
    network = Network(OutboxOptions(), 1)
    (peer,) = network.peers
    with network.connected():
        peer.wire.room = 50
        network.broadcast()
        await asyncio.sleep(0)
        network.broadcast()
        drained = asyncio.ensure_future(peer.outbox.drained())
        peer.outbox.pour()
        peer.wire.give_room(None)
        await asyncio.wait_for(drained, 5)
        await asyncio.sleep(0)
        assert peer.wire.messages == [1, 2]
    assert (network.counters.sent, network.counters.queued) == (2, 0)
