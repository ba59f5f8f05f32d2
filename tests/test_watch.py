"""What is kept an eye on while a peer is connected: heartbeats, idleness, rates."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.managed import ManagedApp, echo
from wshub import ConnectionManager, Heartbeat, Limits, MessageNotEncodable
from wshub.testing import FakeClock, FaultySink, connect, live_server, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wshub import Connection


@asynccontextmanager
async def connected(manager: ConnectionManager, sink: FaultySink) -> AsyncIterator[Connection]:
    """Give a connection over `sink`; a block of `connection()` would swallow how it ended."""
    connection = await manager.connect(sink.websocket)
    try:
        yield connection
    finally:
        connection.abort()
        connection._link.release()


def say(sink: FaultySink, *messages: str | bytes) -> None:
    """Let the peer of `sink` send messages."""
    for message in messages:
        kind = "text" if isinstance(message, str) else "bytes"
        sink.events.put_nowait({"type": "websocket.receive", kind: message})


def heard_by(sink: FaultySink) -> list[str | bytes]:
    """Return the messages that the peer of `sink` got."""
    sent = [event for event in sink.sent if event["type"] == "websocket.send"]
    return [event.get("text", event.get("bytes")) for event in sent]


async def seconds_until_closed(connection: Connection, clock: FakeClock) -> float:
    """Let time pass until `connection` is over, and return how much."""
    start = clock.time()
    while connection.closed is None and clock.time() < start + 1000:
        await clock.advance(0.5)
    return clock.time() - start


# --- heartbeats


async def test_a_client_gets_a_heartbeat_and_its_reply_reaches_no_handler(ws: str) -> None:
    """Need 25: a script in a browser cannot see protocol pings, but it can see and answer this."""
    clock = FakeClock()
    managed = ManagedApp(echo, ConnectionManager(heartbeat=Heartbeat(), clock=clock))
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await until(lambda: managed.opened)
        for _ in range(3):
            await clock.advance(25)
            assert await client.receive() == "ping"
            await client.send("pong")
            assert await client.ask("hello") == "hello"
    assert managed.manager.statistics().received == 3
    assert managed.manager.statistics().sent == 6


async def test_heartbeats_come_at_their_interval() -> None:
    """The first within it, each other one exactly after it, until the connection is over."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(heartbeat=Heartbeat(interval=10), clock=clock)
    async with connected(manager, sink):
        times: list[float] = []
        for _ in range(400):
            await clock.advance(0.1)
            times += [clock.time()] * (len(heard_by(sink)) - len(times))
    assert len(times) == 4
    assert times[0] <= 10.1
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([10] * 3)
    assert clock.waiting == 0
    await clock.advance(100)
    assert len(heard_by(sink)) == 4


async def test_heartbeats_of_clients_that_connect_together_are_spread_in_time() -> None:
    """A crowd that comes back after a restart does not stay in step for ever."""
    clock = FakeClock()
    manager = ConnectionManager(heartbeat=Heartbeat(interval=10), clock=clock)
    sent = []
    async with AsyncExitStack() as peers:
        for _ in range(50):
            await peers.enter_async_context(connected(manager, FaultySink()))
        for _ in range(10):
            before = manager.statistics().sent
            await clock.advance(1)
            sent.append(manager.statistics().sent - before)
    assert sum(sent) == 50
    assert max(sent) <= 25


async def test_a_heartbeat_may_be_anything_that_can_be_sent() -> None:
    """JSON for a protocol of JSON: its reply is told by what `JSON.stringify()` makes of it."""
    clock, sink = FakeClock(), FaultySink()
    beat = Heartbeat(interval=10, message={"type": "ping"}, reply={"type": "pong", "n": [1]})
    manager = ConnectionManager(heartbeat=beat, clock=clock)
    async with connected(manager, sink) as connection:
        await clock.advance(10)
        assert heard_by(sink) == ['{"type":"ping"}']
        say(sink, '{"type":"pong","n":[1]}', '{"type": "pong", "n": [1]}', "pong")
        assert await connection.receive() == '{"type": "pong", "n": [1]}'
        assert await connection.receive() == "pong"


async def test_bytes_are_told_by_bytes() -> None:
    """A text that looks like a binary reply is none."""
    sink = FaultySink()
    beat = Heartbeat(message=b"\x09", reply=b"\x0a")
    async with connected(ConnectionManager(heartbeat=beat), sink) as connection:
        say(sink, b"\x0a", "\x0a")
        assert await connection.receive() == "\x0a"


async def test_without_a_reply_the_handler_sees_everything() -> None:
    """Such heartbeats only go out; what comes back is the app's."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(heartbeat=Heartbeat(interval=10, reply=None), clock=clock)
    async with connected(manager, sink) as connection:
        await clock.advance(10)
        assert heard_by(sink) == ["ping"]
        say(sink, "pong", "null")
        assert [await connection.receive(), await connection.receive()] == ["pong", "null"]


async def test_a_heartbeat_is_left_out_while_messages_wait() -> None:
    """They show that the server is there, once they arrive; a slow peer is not sent more still."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(heartbeat=Heartbeat(interval=2), clock=clock)
    async with connected(manager, sink) as connection:
        sink.blocked = asyncio.Event()
        await connection.send("blocks")
        await clock.advance(6)
        assert connection.outbox.messages == 1
        sink.blocked.set()
        await until(lambda: not connection.outbox.messages)
        assert heard_by(sink) == ["blocks"]
        await clock.advance(2)
        assert heard_by(sink) == ["blocks", "ping"]


async def test_a_heartbeat_finds_a_peer_that_is_dead() -> None:
    """A write that fails ends the connection, also when nothing else is sent, and the heartbeat."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(heartbeat=Heartbeat(interval=10), clock=clock)
    async with connected(manager, sink) as connection:
        sink.fault = OSError("gone")
        await clock.advance(10)
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.by) == (1006, "peer")
        assert manager.statistics().evicted["write_failed"] == 1
    assert clock.waiting == 0


async def test_who_left_during_the_handshake_is_not_watched() -> None:
    """A connection that is over from the start gets no heartbeat, and is not idle either."""
    clock, sink = FakeClock(), FaultySink()
    sink.fault = OSError("gone")
    manager = ConnectionManager(heartbeat=Heartbeat(interval=1), idle_timeout=5, clock=clock)
    async with connected(manager, sink) as connection:
        await clock.advance(9)
        assert connection.closed is not None
        assert connection.closed.code == 1006
    assert clock.waiting == 0


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_is_positive(interval: float) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match=f"interval must be positive, not {interval!r}"):
        Heartbeat(interval=interval)


@pytest.mark.parametrize("field", ["message", "reply"])
def test_what_cannot_be_sent_is_no_heartbeat(field: str) -> None:
    """It is found where it is written, not when the first client connects."""
    options: dict[str, Any] = {field: object()}
    with pytest.raises(MessageNotEncodable):
        Heartbeat(**options)


# --- idleness


async def test_a_silent_client_is_closed_with_3008(ws: str) -> None:
    """Whoever sends something in time stays."""
    clock = FakeClock()
    managed = ManagedApp(echo, ConnectionManager(idle_timeout=60, clock=clock))
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws") as silent,
        connect(f"{server.ws}/ws") as talkative,
    ):
        await until(lambda: len(managed.opened) == 2)
        await clock.advance(59)
        assert await talkative.ask("hello") == "hello"
        await clock.advance(1)
        assert await silent.closed() == (3008, "idle")
        await clock.advance(58)
        assert await talkative.ask("hello") == "hello"
        await clock.advance(60)
        assert await talkative.closed() == (3008, "idle")


async def test_each_message_gives_a_peer_its_time_anew() -> None:
    """It is idle exactly `idle_timeout` after the last one."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(idle_timeout=60, clock=clock)
    async with connected(manager, sink) as connection:
        for _ in range(5):
            await clock.advance(59)
            say(sink, "still here")
            assert await connection.receive() == "still here"
        assert await seconds_until_closed(connection, clock) == 60
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.by) == (3008, "hub")
    assert clock.waiting == 0


async def test_the_reply_to_a_heartbeat_keeps_a_peer_alive() -> None:
    """A page that only listens is not idle as long as it answers."""
    clock, sink = FakeClock(), FaultySink()
    beat = Heartbeat(interval=20)
    manager = ConnectionManager(heartbeat=beat, idle_timeout=30, clock=clock)
    async with connected(manager, sink) as connection:
        answered = 0
        while clock.time() < 300:
            await clock.advance(1)
            beats = len(heard_by(sink))
            say(sink, *["pong"] * (beats - answered))
            answered = beats
        assert answered >= 15
        assert connection.closed is None
        assert await seconds_until_closed(connection, clock) <= 30


async def test_a_peer_is_not_idle_while_its_messages_wait_for_the_handler() -> None:
    """Need 8: a busy handler must not cost a healthy client its connection."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(idle_timeout=60, read_ahead=2, clock=clock)
    async with connected(manager, sink) as connection:
        say(sink, "1", "2", "3")
        await clock.advance(600)
        assert [await connection.receive() for _ in range(3)] == ["1", "2", "3"]
        assert connection.closed is None
        assert await seconds_until_closed(connection, clock) == 60


async def test_the_time_of_a_peer_begins_when_reading_goes_on() -> None:
    """What it sent meanwhile may still be in the socket: a handler that catches up is in time."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(idle_timeout=60, read_ahead=1, clock=clock)
    async with connected(manager, sink) as connection:
        say(sink, "1")
        await clock.advance(59)
        assert await connection.receive() == "1"
        await clock.advance(0)
        assert await seconds_until_closed(connection, clock) == 60


async def test_a_peer_that_has_left_is_not_idle() -> None:
    """Its timer goes with it."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(idle_timeout=60, clock=clock)
    async with connected(manager, sink) as connection:
        sink.events.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await until(lambda: connection.closed)
        assert clock.waiting == 0


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 20])
def test_an_idle_timeout_leaves_time_to_answer(timeout: float) -> None:
    """Otherwise a client that answers each heartbeat would be closed in between."""
    with pytest.raises(ValueError, match=f"idle_timeout must be positive, .* not {timeout!r}"):
        ConnectionManager(idle_timeout=timeout, heartbeat=Heartbeat(interval=20))


def test_an_idle_timeout_alone_may_be_short() -> None:
    """Without heartbeats, or without replies to them, there is nothing to leave time for."""
    ConnectionManager(idle_timeout=1)
    ConnectionManager(idle_timeout=20.1, heartbeat=Heartbeat(interval=20))
    ConnectionManager(idle_timeout=1, heartbeat=Heartbeat(interval=20, reply=None))
    with pytest.raises(ValueError, match="idle_timeout must be positive"):
        ConnectionManager(idle_timeout=0, heartbeat=Heartbeat(interval=20, reply=None))


# --- rates


async def test_replies_to_heartbeats_count_like_messages() -> None:
    """Otherwise a flood of them would be the way around the limits."""
    for limits in (
        Limits(messages_per_second=1, burst=3),
        Limits(bytes_per_second=4, burst=3),
    ):
        sink = FaultySink()
        manager = ConnectionManager(heartbeat=Heartbeat(), limits=limits, clock=FakeClock())
        async with connected(manager, sink) as connection:
            say(sink, *["pong"] * 6)
            await until(sink.events.empty)
            assert connection.closed is None
            say(sink, "pong")
            await until(sink.events.empty)
            assert [message async for message in connection] == []
        assert sink.sent[-1] == {
            "type": "websocket.close",
            "code": 1008,
            "reason": "too many messages",
        }
        assert sum(manager.statistics().limited.values()) == 2
        assert manager.statistics().received == 0
