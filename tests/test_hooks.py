"""Hooks: an app hears of every connection, every drop and every limit, in order and by reason."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import WebSocketException

from tests.managed import ManagedApp, echo
from wshub import (
    BackendLost,
    BackendRegained,
    ConnectionEnded,
    ConnectionManager,
    ConnectionOpened,
    Event,
    LimitExceeded,
    LimitReached,
    Limits,
    MessagesDropped,
    OutboxFull,
    OutboxOptions,
)
from wshub.rejections import RejectionHandler
from wshub.testing import FakeClock, FaultySink, StalledClient, connect, live_server, until

if TYPE_CHECKING:
    from wshub import Connection, Statistics


class Recorder:
    """
    A hook that keeps what it is told.

    Attributes:
        events: All of it, in order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        """The names of the events, in order."""
        return [type(event).__name__ for event in self.events]

    def check(self, statistics: Statistics) -> None:
        """Check that what was told adds up to what was counted."""
        dropped: Counter[str] = Counter(dict.fromkeys(statistics.dropped, 0))
        evicted: Counter[str] = Counter(dict.fromkeys(statistics.evicted, 0))
        limited: Counter[str] = Counter(dict.fromkeys(statistics.limited, 0))
        opened = ended = 0
        for event in self.events:
            match event:
                case ConnectionOpened():
                    opened += 1
                case ConnectionEnded(evicted=reason):
                    ended += 1
                    if reason is not None:
                        evicted[reason] += 1
                case MessagesDropped(reason=cause, count=count):
                    dropped[cause] += count
                case LimitReached(limit=limit):
                    limited[limit] += 1
                case BackendLost() | BackendRegained():  # pragma: no cover (none in memory)
                    raise AssertionError(event)
        assert dropped == statistics.dropped
        assert evicted == statistics.evicted
        assert limited == statistics.limited
        assert opened == statistics.opened
        assert ended == statistics.opened - statistics.connections


def managed_with(recorder: Recorder, **options: Any) -> ManagedApp:
    """An app that echoes and tells `recorder` what happens."""
    return ManagedApp(echo, ConnectionManager(hooks=[recorder], **options))


# --- connections


async def test_a_connection_opens_and_ends_once(ws: str) -> None:
    """The events have the connection itself, and how it ended, whoever ended it."""
    recorder = Recorder()
    managed = managed_with(recorder)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws?user=ana&room=tea") as client:
            await client.close(4001, "enough")
        await until(lambda: managed.outcomes == [None])
        async with connect(f"{server.ws}/ws") as client:
            await until(lambda: len(managed.opened) == 2)
            await managed.opened[1].close(4002, "closing time")
            await managed.opened[1].close()
        await until(lambda: managed.outcomes == [None, None])
    assert recorder.kinds == ["ConnectionOpened", "ConnectionEnded"] * 2
    opened, ended, _, ended_by_us = recorder.events
    assert isinstance(opened, ConnectionOpened)
    assert isinstance(ended, ConnectionEnded)
    assert isinstance(ended_by_us, ConnectionEnded)
    assert opened.connection is ended.connection is managed.opened[0]
    assert (ended.closed.code, ended.closed.reason, ended.closed.by) == (4001, "enough", "peer")
    assert ended.evicted is None
    assert str(ended_by_us.closed) == "connection closed by the hub with 4002 (closing time)"
    recorder.check(managed.manager.statistics())


async def test_what_a_hook_sees_of_a_connection_has_happened() -> None:
    """It is registered when it opens, and out of its rooms when it has ended."""
    seen: list[tuple[str, bool, bool, set[str]]] = []

    def look(event: Event) -> None:
        assert isinstance(event, ConnectionOpened | ConnectionEnded)
        connection = event.connection
        registered = connection.websocket in manager.active_connections
        kind = type(event).__name__
        seen.append((kind, registered, connection.closed is None, set(connection.rooms)))

    manager = ConnectionManager(hooks=[look])
    async with manager.connection(FaultySink().websocket, rooms=["tea"]):
        pass
    assert seen == [
        ("ConnectionOpened", True, True, set()),
        ("ConnectionEnded", False, False, set()),
    ]


async def test_who_left_during_the_handshake_opens_and_ends() -> None:
    """Its connection is over from the start: both events come, in their order."""
    recorder, sink = Recorder(), FaultySink()
    manager = ConnectionManager(hooks=[recorder])
    sink.fault = OSError("gone")
    async with manager.connection(sink.websocket):
        assert recorder.kinds == ["ConnectionOpened", "ConnectionEnded"]
    recorder.check(manager.statistics())


async def test_disconnect_is_not_the_end() -> None:
    """The tutorial's `disconnect()` takes a WebSocket out of the registry; it ends later, once."""
    recorder, sink = Recorder(), FaultySink()
    manager = ConnectionManager(hooks=[recorder])
    async with manager.connection(sink.websocket):
        manager.disconnect(sink.websocket)
        assert recorder.kinds == ["ConnectionOpened"]
    assert recorder.kinds == ["ConnectionOpened", "ConnectionEnded"]


# --- drops and evictions


async def test_an_eviction_is_told_by_its_reason(ws: str) -> None:
    """Row 11: a peer that stalls overflows its outbox; all that is lost is told."""
    recorder = Recorder()
    managed = managed_with(recorder, outbox=OutboxOptions(max_messages=2, max_bytes=10**9))
    async with (
        live_server(managed.app, ws=ws) as server,
        StalledClient(f"{server.ws}/ws"),
        connect(f"{server.ws}/ws", max_size=None) as healthy,
    ):
        await until(lambda: len(managed.opened) == 2)
        count = 0
        while not managed.manager.statistics().evicted["overflow"]:
            await managed.manager.broadcast("x" * 1_000_000)
            assert len(await healthy.receive()) == 1_000_000
            count += 1
            assert count < 100
        assert recorder.kinds[2:] == ["MessagesDropped", "ConnectionEnded", "MessagesDropped"]
        overflowed, ended, discarded = recorder.events[2:]
        assert overflowed == MessagesDropped(managed.opened[0], "overflow", 1)
        assert discarded == MessagesDropped(managed.opened[0], "closed", 3)
        assert isinstance(ended, ConnectionEnded)
        assert (ended.evicted, ended.closed.code) == ("overflow", 1013)
        recorder.check(managed.manager.statistics())
        assert await healthy.ask("undisturbed") == "undisturbed"


async def test_a_peer_that_blocks_for_too_long_is_told() -> None:
    """Its reason is the timeout, and what waited was dropped because it is closed."""
    recorder, sink, clock = Recorder(), FaultySink(), FakeClock()
    options = OutboxOptions(send_timeout=3)
    manager = ConnectionManager(hooks=[recorder], outbox=options, clock=clock)
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        for _ in range(4):
            await manager.broadcast("x")
        await clock.advance(3)
        assert recorder.kinds == ["ConnectionOpened", "ConnectionEnded", "MessagesDropped"]
        assert recorder.events[2] == MessagesDropped(connection, "closed", 4)
        recorder.check(manager.statistics())
        await clock.advance(1)


async def test_a_write_that_fails_is_told() -> None:
    """The message that found out is dropped first, then the connection ends as its peer's doing."""
    recorder, sink = Recorder(), FaultySink()
    manager = ConnectionManager(hooks=[recorder])
    async with manager.connection(sink.websocket) as connection:
        sink.fault = OSError("gone")
        await manager.broadcast("x")
        assert recorder.kinds == ["ConnectionOpened", "MessagesDropped", "ConnectionEnded"]
        assert recorder.events[1] == MessagesDropped(connection, "closed", 1)
        ended = recorder.events[2]
        assert isinstance(ended, ConnectionEnded)
        assert (ended.evicted, ended.closed.code, ended.closed.by) == ("write_failed", 1006, "peer")
        recorder.check(manager.statistics())


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
async def test_drops_are_told_one_by_one(overflow: Any) -> None:
    """Nothing is lost silently: what did not arrive was told as dropped."""
    recorder, sink = Recorder(), FaultySink()
    options = OutboxOptions(max_messages=3, overflow=overflow)
    manager = ConnectionManager(hooks=[recorder], outbox=options)
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        for number in range(10):
            await manager.broadcast(str(number))
        assert recorder.events[1:] == [MessagesDropped(connection, "overflow", 1)] * 6
        recorder.check(manager.statistics())
        sink.blocked.set()
        await until(lambda: not connection.outbox.messages)
        assert manager.statistics().sent == 4
    recorder.check(manager.statistics())


async def test_one_long_message_may_drop_several() -> None:
    """The event says how many."""
    recorder, sink = Recorder(), FaultySink()
    options = OutboxOptions(max_bytes=10, overflow="drop_oldest")
    manager = ConnectionManager(hooks=[recorder], outbox=options)
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        for message in ("blocks", "12345", "12345", "1234567890"):
            await manager.broadcast(message)
        assert recorder.events[1:] == [MessagesDropped(connection, "overflow", 2)]
        recorder.check(manager.statistics())
        sink.blocked.set()


async def test_a_message_to_a_peer_that_is_closing_is_told() -> None:
    """A broadcast that was under way when a hook closed a recipient tells its drop as well."""

    def close_all(event: Event) -> None:
        if isinstance(event, ConnectionEnded):
            for connection in connections:
                connection.abort()

    recorder, sinks = Recorder(), [FaultySink(), FaultySink()]
    manager = ConnectionManager(hooks=[recorder, close_all])
    connections = [await manager.connect(sink.websocket) for sink in sinks]
    sinks[0].fault = OSError("gone")
    await manager.broadcast("x")
    assert manager.statistics().dropped["closed"] == 2
    recorder.check(manager.statistics())
    for connection in connections:
        connection._link.release()


# --- limits


async def test_a_refused_handshake_is_told(ws: str) -> None:
    """With the limit, the user and the address as it is counted; there is no connection."""
    recorder = Recorder()
    limits = Limits(connections_per_address=1, trusted_proxies=["127.0.0.1"])
    managed = managed_with(recorder, limits=limits)
    managed.app.add_exception_handler(WebSocketException, RejectionHandler("close"))
    headers = {"X-Forwarded-For": "2001:db8::7"}
    async with (
        live_server(managed.app, ws=ws, proxy_headers=False) as server,
        connect(f"{server.ws}/ws", additional_headers=headers),
        connect(f"{server.ws}/ws?user=ana", additional_headers=headers) as refused,
    ):
        assert (await refused.closed())[0] == 1013
        (told,) = (event for event in recorder.events if isinstance(event, LimitReached))
        expected = LimitReached("connections_per_address", "refused", None, "ana", "2001:db8::/64")
        assert told == expected
    recorder.check(managed.manager.statistics())


async def test_each_way_to_reach_a_limit_is_told() -> None:
    """A join is refused, a peer is warned and then closed: with the connection and its user."""
    recorder, sink = Recorder(), FaultySink()
    limits = Limits(connections=1, rooms_per_connection=1, messages_per_second=1, burst=1)
    manager = ConnectionManager(hooks=[recorder], limits=limits, clock=FakeClock())
    async with manager.connection(sink.websocket, user="ana", rooms=["tea"]) as connection:
        with pytest.raises(LimitExceeded):
            await connection.join("milk")
        with pytest.raises(LimitExceeded):
            await manager.connect(FaultySink().websocket)
        for _ in range(3):
            sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
        assert len([message async for message in connection]) <= 3
    opened, *told, ended = recorder.events
    assert isinstance(opened, ConnectionOpened)
    assert told == [
        LimitReached("rooms_per_connection", "refused", connection, "ana", None),
        LimitReached("connections", "refused", None, None, None),
        LimitReached("messages_per_second", "warned", connection, "ana", None),
        LimitReached("messages_per_second", "closed", connection, "ana", None),
    ]
    assert isinstance(ended, ConnectionEnded)
    assert ended.closed.code == 1008
    recorder.check(manager.statistics())


# --- hooks that misbehave


async def test_a_hook_that_fails_hurts_nobody(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is logged once; other hooks, connections and messages are not concerned."""

    def fail(event: Event) -> None:
        raise LookupError(type(event).__name__)

    recorder = Recorder()
    limits = Limits(messages_per_second=1, burst=1)
    manager = ConnectionManager(hooks=[fail, recorder], limits=limits, clock=FakeClock())
    managed = ManagedApp(echo, manager)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("one") == "one"
            assert await client.ask("two") == "two"
        await until(lambda: managed.outcomes == [None])
    assert recorder.kinds == ["ConnectionOpened", "LimitReached", "ConnectionEnded"]
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in failures] == [
        f"hook {fail!r} failed on {kind}" for kind in recorder.kinds
    ]
    assert all(record.exc_info for record in failures)
    recorder.check(manager.statistics())


async def test_a_hook_that_fails_does_not_stop_a_broadcast(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even inside the write that found a peer dead."""

    def fail(_: Event) -> None:
        raise LookupError

    manager = ConnectionManager(hooks=[fail])
    dead, alive = FaultySink(), FaultySink()
    async with manager.connection(dead.websocket), manager.connection(alive.websocket):
        dead.fault = OSError("gone")
        await manager.broadcast("x")
        assert alive.sent[-1] == {"type": "websocket.send", "text": "x"}
        assert manager.statistics().connections == 1
    assert "hook" in caplog.text


async def test_a_hook_may_send() -> None:
    """It is called in the event loop; a full outbox is `OutboxFull`, as ever."""
    sinks = [FaultySink(), FaultySink()]
    full: list[Connection] = []

    def tell_others(event: Event) -> None:
        if isinstance(event, MessagesDropped):
            other.send_nowait(f"dropped {event.count}")
            try:
                event.connection.send_nowait("you are slow")
            except OutboxFull:
                full.append(event.connection)

    options = OutboxOptions(max_messages=1, overflow="drop_newest")
    manager = ConnectionManager(hooks=[tell_others], outbox=options)
    async with (
        manager.connection(sinks[0].websocket, rooms=["slow"]) as slow,
        manager.connection(sinks[1].websocket) as other,
    ):
        sinks[0].blocked = asyncio.Event()
        for _ in range(3):
            await manager.broadcast("x", room="slow")
        assert sinks[1].sent[-1]["text"] == "dropped 1"
        assert full == [slow]
        sinks[0].blocked.set()


async def test_a_hook_may_close_what_has_just_opened() -> None:
    """The handler then finds a connection that is over; nothing is left behind."""

    def abort(event: Event) -> None:
        if isinstance(event, ConnectionOpened):
            event.connection.abort()

    recorder = Recorder()
    beat_and_idle = {"idle_timeout": 5, "clock": FakeClock()}
    manager = ConnectionManager(hooks=[abort, recorder], **beat_and_idle)  # type: ignore[arg-type]
    async with manager.connection(FaultySink().websocket, rooms=["tea"]) as connection:
        assert connection.closed is not None
        assert [message async for message in connection] == []
        assert manager.room("tea").members == []
    assert sorted(recorder.kinds) == ["ConnectionEnded", "ConnectionOpened"]
    assert manager.statistics().connections == 0


def test_an_asynchronous_hook_is_a_type_error() -> None:
    """It would never be awaited."""

    async def wait(event: Event) -> None:
        raise AssertionError(event)  # pragma: no cover

    with pytest.raises(TypeError, match="is asynchronous, and hooks are called, not awaited"):
        ConnectionManager(hooks=[wait])  # type: ignore[list-item]
