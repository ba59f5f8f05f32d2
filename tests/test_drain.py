"""Draining: everyone is told to come back, not all at once, and nobody new is taken meanwhile."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
from starlette.exceptions import WebSocketException
from websockets.exceptions import InvalidStatus

from tests.crowds import crowd, part
from tests.managed import ManagedApp, echo
from wshub import ConnectionManager, OutboxOptions, Rejection
from wshub.rejections import RejectionHandler
from wshub.testing import FakeClock, FaultySink, StalledClient, connect, live_server, until

if TYPE_CHECKING:
    from starlette.types import Message

GOODBYE = re.compile(r"shutting down; retry-after=(\d+\.\d)")


def delay_in(reason: str) -> float:
    """Return the seconds that a goodbye tells a client to wait."""
    found = GOODBYE.fullmatch(reason)
    assert found, reason
    return float(found[1])


def last(sink: FaultySink) -> Message:
    """Return what the peer of `sink` was sent last."""
    return sink.sent[-1]


def told(sinks: list[FaultySink]) -> int:
    """Return how many of the peers got a close frame."""
    return sum(last(sink)["type"] == "websocket.close" for sink in sinks)


async def test_clients_are_told_when_to_come_back(ws: str) -> None:
    """Need 26: a goodbye is 1012, with a delay that a client can read."""
    managed = ManagedApp(echo)
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws") as first,
        connect(f"{server.ws}/ws") as second,
    ):
        assert await first.ask("in") == await second.ask("in") == "in"
        await managed.manager.drain(jitter=0.2)
        for client in (first, second):
            code, reason = await client.closed()
            assert code == 1012
            assert delay_in(reason) <= 0.2
        await until(lambda: managed.outcomes == [None, None])
        assert managed.manager.active_connections == []


async def test_nobody_is_taken_during_and_after_a_drain(ws: str) -> None:
    """A client that comes is sent on to whoever serves next, until a lifespan has ended."""
    managed = ManagedApp(echo)
    managed.app.add_exception_handler(WebSocketException, RejectionHandler())
    async with live_server(managed.app, ws=ws) as server:
        async with managed.manager.lifespan():
            await managed.manager.drain()
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{server.ws}/ws").__aenter__()
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "5"
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("again") == "again"


async def test_goodbyes_are_spread_over_the_jitter() -> None:
    """One after the other in even steps, and the delays at random, so that nobody storms back."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    sinks = await crowd(manager, 50)
    draining = asyncio.create_task(manager.drain(timeout=60, jitter=5))
    for second in range(5):
        await clock.advance(0 if second == 0 else 1)
        assert told(sinks) == pytest.approx(10 * second + 1, abs=1)
        assert manager.statistics().connections == 50 - told(sinks)
    await clock.advance(0.9)
    await draining
    assert told(sinks) == 50
    delays = [delay_in(last(sink)["reason"]) for sink in sinks]
    assert 0 <= min(delays) < 1.5
    assert 3.5 < max(delays) <= 5
    assert all(last(sink)["code"] == 1012 for sink in sinks)
    part(sinks)


async def test_with_little_time_the_goodbyes_are_closer_together() -> None:
    """Half of it is left for those who are told last; their delays stay as asked for."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    sinks = await crowd(manager, 10)
    draining = asyncio.create_task(manager.drain(timeout=4, jitter=100))
    await clock.advance(2)
    await draining
    assert told(sinks) == 10
    assert max(delay_in(last(sink)["reason"]) for sink in sinks) > 10
    part(sinks)


async def test_without_jitter_everyone_is_told_at_once_but_not_in_one_breath() -> None:
    """The event loop gets a turn now and then: pings and requests are answered meanwhile."""
    manager = ConnectionManager()
    sinks = await crowd(manager, 200)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while told(sinks) < 200:
            turns += told(sinks) > 0
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await manager.drain(jitter=0)
    await counting
    assert turns >= 2
    assert {delay_in(last(sink)["reason"]) for sink in sinks} == {0.0}
    part(sinks)


async def test_what_is_queued_is_sent_before_the_goodbye() -> None:
    """A slow client loses nothing by it."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket):
        sink.blocked = asyncio.Event()
        for number in range(3):
            await manager.broadcast(str(number))
        draining = asyncio.create_task(manager.drain(jitter=0))
        await until(lambda: not manager.active_connections)
        assert not draining.done()
        sink.blocked.set()
        await draining
    assert [event.get("text") for event in sink.sent[1:]] == ["0", "1", "2", None]
    assert last(sink)["code"] == 1012


async def test_who_does_not_take_its_goodbye_in_time_is_dropped(ws: str) -> None:
    """A stalled client holds up a drain for `timeout` seconds, not for as long as it likes."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(send_timeout=60)))
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        while not stalled.outbox.messages:
            await stalled.send("x" * 1_000_000)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await managed.manager.drain(timeout=0.3, jitter=0)
        await until(lambda: not server.connections)
        await until(lambda: managed.outcomes == [None])
    assert managed.manager.statistics().queued == 0


async def test_who_leaves_meanwhile_is_not_waited_for() -> None:
    """A drain is over when everyone has gone, however much of its time is left."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    sinks = await crowd(manager, 10)
    draining = asyncio.create_task(manager.drain(jitter=10))
    await clock.advance(0)
    assert told(sinks) == 1
    part(sinks)
    await until(lambda: not manager.active_connections)
    await clock.advance(1)
    await draining
    assert told(sinks) == 1


async def test_a_drain_of_nobody_ends_at_once() -> None:
    """There is nothing to spread."""
    await ConnectionManager(clock=FakeClock()).drain()


async def test_handlers_that_wait_for_something_else_end_with_a_drain() -> None:
    """As at a shutdown of the server they have a second."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)

    async def handle() -> None:
        async with manager.connection(FaultySink().websocket):
            await asyncio.Queue[None]().get()

    handling = asyncio.create_task(handle())
    await until(lambda: manager.active_connections)
    await manager.drain(jitter=0)
    assert not handling.done()
    await clock.advance(1)
    await handling


async def test_a_drain_that_is_cancelled_is_called_off() -> None:
    """Those who were not told yet stay, newcomers are taken again, and a second drain ends it."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    sinks = await crowd(manager, 10)
    draining = asyncio.create_task(manager.drain(jitter=10))
    await clock.advance(4.5)
    with pytest.raises(Rejection):
        await manager.connect(FaultySink().websocket)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    await clock.advance(100)
    assert told(sinks) == 5
    assert manager.statistics().connections == 5
    sinks += await crowd(manager, 1)
    await manager.drain(jitter=0)
    assert told(sinks) == 11
    part(sinks)


async def test_a_second_drain_that_is_cancelled_leaves_the_first() -> None:
    """The manager was draining before, and goes on."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    sinks = await crowd(manager, 2)
    first, second = (asyncio.create_task(manager.drain(jitter=10)) for _ in range(2))
    await clock.advance(0)
    second.cancel()
    await asyncio.wait({second})
    with pytest.raises(Rejection):
        await manager.connect(FaultySink().websocket)
    await clock.advance(5)
    await first
    assert told(sinks) == 2
    part(sinks)


async def test_who_is_being_accepted_when_a_drain_begins_is_told_too() -> None:
    """It was let in before, and is in nobody's list yet."""
    manager, sink = ConnectionManager(), FaultySink()
    sink.gate = asyncio.get_running_loop().create_future()
    heard: list[object] = []
    rooms: list[object] = []

    async def handle() -> None:
        async with manager.connection(sink.websocket, rooms=["tea"]) as connection:
            rooms.append(connection.rooms)
            heard.extend([message async for message in connection])

    handling = asyncio.create_task(handle())
    await asyncio.sleep(0)
    await manager.drain(jitter=0)
    sink.gate.set_result(None)
    await handling
    assert rooms == [set()]
    assert heard == []
    assert [event["type"] for event in sink.sent] == ["websocket.accept", "websocket.close"]
    assert last(sink)["code"] == 1012
    assert delay_in(last(sink)["reason"]) <= 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("jitter", -0.1),
        ("jitter", float("nan")),
        ("jitter", float("inf")),
    ],
)
async def test_a_drain_that_cannot_be_is_a_value_error(name: str, value: float) -> None:
    """Nothing has begun then: newcomers are taken on."""
    manager = ConnectionManager()
    options = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be a .* not {value!r}"):
        await manager.drain(**options)
    async with manager.connection(FaultySink().websocket) as connection:
        assert connection.closed is None
