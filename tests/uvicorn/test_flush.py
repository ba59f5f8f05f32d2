"""What is put in a turn leaves together: in order, within the bounds, and counted."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvloop
from fastapi import FastAPI, WebSocket
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

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
from tests.uvicorn.wires import Network, Peer
from wshub import ConnectionManager, OutboxOptions
from wshub._flush import TURN
from wshub._frames import encode_frame
from wshub.testing import HalfOpenClient, Opcode, RawClient, connect, frame, live_server, until

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("when", ["written to", "waited for"])
async def test_a_peer_that_is_lost(when: str) -> None:
    """It is evicted, and what it did not get is counted."""
    network = Network(OutboxOptions(), 2)
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


# --- whatever happens


STEPS = st.one_of(
    st.tuples(st.just("broadcast"), st.integers(126, 900)),
    st.tuples(st.just("put"), st.integers(126, 900)),
    st.tuples(st.just("send"), st.integers(126, 900)),
    st.tuples(st.just("give room"), st.one_of(st.none(), st.integers(1, 1200))),
    st.tuples(st.just("block"), st.integers(0, 1000)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("time"), st.integers(1, 12)),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.sampled_from(["stop", "pour", "discard", "break", "lose"]), st.none()),
)


class Story:
    """Plays steps on two outboxes, and looks after each whether all is well."""

    def __init__(self, options: OutboxOptions) -> None:
        self._options = options
        self._network = Network(options, 2)
        self._senders: list[asyncio.Task[None]] = []

    async def play(self, steps: list[tuple[int, tuple[str, Any]]]) -> None:
        network = self._network
        with network.connected():
            for number, (step, value) in steps:
                await self._take(network.peers[number], step, value)
                self._look()
            for peer in network.peers:
                peer.wire.give_room(None)
                if peer.wire.is_lost:
                    peer.wire.lose()
            for _ in range(10):
                await asyncio.sleep(0)
            for sender in self._senders:
                assert sender.done()
            self._look()
            assert network.counters.queued == 0
            assert network.clock.waiting == 0
            for peer in network.peers:
                if not peer.wire.is_lost and not network.counters.dropped["overflow"]:
                    kept = peer.wire.messages
                    assert kept == peer.outbox.noted[: len(kept)]
            if not any(peer.wire.is_lost for peer in network.peers):
                whole = sum(len(peer.wire.messages) for peer in network.peers)
                assert network.counters.sent <= whole
                if not network.counters.dropped["closed"]:
                    assert network.counters.sent == whole

    async def _take(self, peer: Peer, step: str, value: Any) -> None:
        network, outbox = self._network, peer.outbox
        if step == "turn":
            await asyncio.sleep(0)
        elif step == "time":
            await network.clock.advance(value)
        else:
            steps: dict[str, Callable[[], object]] = {
                "broadcast": lambda: network.broadcast(value),
                "put": lambda: network.put(peer, value),
                "send": lambda: self._start_to_send(peer, value),
                "cancel": lambda: [sender.cancel() for sender in self._senders[-1:]],
                "block": lambda: setattr(peer.wire, "room", value),
                "give room": lambda: peer.wire.give_room(value),
                "flush": outbox.flush,
                "stop": outbox.stop_accepting,
                "pour": outbox.pour,
                "discard": outbox.discard,
                "break": lambda: setattr(peer.wire, "is_lost", True),
                "lose": peer.wire.lose,
            }
            steps[step]()

    def _start_to_send(self, peer: Peer, size: int) -> None:
        self._senders.append(asyncio.create_task(self._network.send(peer, size)))

    def _look(self) -> None:
        counters, options = self._network.counters, self._options
        put = collected = waiting = 0
        for peer in self._network.peers:
            outbox = peer.outbox
            batch = outbox.pending
            put += len(outbox.noted)
            waiting += outbox.messages
            if batch is not None:
                collected += batch.count
                assert not outbox.messages
                assert batch.count <= options.max_messages
                assert batch.size <= options.max_bytes or batch.count == 1
            queue = outbox._queue
            assert len(queue) <= options.max_messages
            assert outbox.bytes == sum(message.size for message in queue)
            assert outbox.bytes <= options.max_bytes or len(queue) == 1
            numbers = peer.wire.messages
            assert numbers == [number for number in outbox.noted if number in set(numbers)]
            may_miss = options.overflow != "disconnect" and counters.dropped["overflow"]
            assert may_miss or numbers == outbox.noted[: len(numbers)]
        dropped = sum(counters.dropped.values())
        assert counters.sent + counters.queued + collected + dropped == put
        assert counters.queued >= waiting
        assert all(count >= 0 for count in (counters.sent, counters.queued, dropped))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("examples", [150, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_whatever_happens_to_an_outbox(
    loop: str, overflow: Literal["disconnect", "drop_oldest", "drop_newest"], examples: int
) -> None:
    """Order, bounds and figures hold, and what comes is what was put, each message whole."""

    @settings(
        max_examples=examples,
        derandomize=examples < 1000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=40), st.data())
    def plays(steps: list[tuple[int, tuple[str, Any]]], data: st.DataObject) -> None:
        options = OutboxOptions(
            overflow=overflow,
            max_messages=data.draw(st.integers(1, 5)),
            max_bytes=data.draw(st.integers(300, 3000)),
        )
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(Story(options).play(steps))

    plays()
