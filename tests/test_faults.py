"""Servers that fail in ways that real ones seldom show, over a hand-made ASGI connection."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect

from tests.crowds import crowd, part
from wshub import ConnectionManager, OutboxOptions
from wshub._tasks import TaskOwner
from wshub.testing import FaultySink, until

if TYPE_CHECKING:
    from starlette.types import Message


async def test_a_write_that_fails_evicts_the_peer() -> None:
    """Row 1: whatever the server raises in a send, the peer is gone and the sender is not."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.fault = RuntimeError("Unexpected ASGI message 'websocket.send'")
        await manager.broadcast("into the void")
        assert manager.active_connections == []
        assert manager.statistics().evicted["write_failed"] == 1
        assert manager.statistics().dropped["closed"] == 1
        with pytest.raises(WebSocketDisconnect):
            await connection.send("x")


async def test_a_write_that_fails_later_evicts_the_peer() -> None:
    """A send that blocks and then fails ends the same way, with what waited counted."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket):
        sink.blocked = asyncio.Event()
        await manager.broadcast("blocks")
        await manager.broadcast("waits")
        assert manager.statistics().queued == 2
        sink.fault = OSError("gone")
        sink.blocked.set()
        await until(lambda: manager.active_connections == [])
        assert manager.statistics().evicted["write_failed"] == 1
        assert manager.statistics().dropped["closed"] == 2
        assert manager.statistics().queued == 0


async def test_a_close_that_fails_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Row 7: closing a peer whose server refuses the close frame ends quietly."""
    caplog.set_level(logging.DEBUG, logger="wshub")
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.fault = RuntimeError("response already completed")
        await connection.close(4000)
    assert "left before its close frame" in caplog.text


async def test_a_close_that_fails_later_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The same, after the close frame blocked for a while."""
    caplog.set_level(logging.DEBUG, logger="wshub")
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        closing = asyncio.create_task(connection.close(4000))
        await until(lambda: connection.closed)
        sink.fault = OSError("gone")
        sink.blocked.set()
        await closing
    assert "left before its close frame" in caplog.text


async def test_a_close_that_blocks_is_given_up() -> None:
    """Need 10: a close frame that never leaves ends with the deadline, also without a transport."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=0.05))
    sink = FaultySink()
    async with asyncio.timeout(5), manager.connection(sink.websocket):
        sink.blocked = asyncio.Event()
    assert [event["type"] for event in sink.sent] == ["websocket.accept"]


async def test_a_receive_that_fails_is_a_disconnect() -> None:
    """Row 9: whatever the server raises in a receive, the handler's loop simply ends."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.events.put_nowait(RuntimeError("cannot call recv"))
        assert [message async for message in connection] == []
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.by) == (1006, "peer")


async def test_a_disconnect_without_a_code_is_1005() -> None:
    """ASGI allows a disconnect event without code and reason: RFC 6455 §7.1.5 calls it 1005."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.events.put_nowait({"type": "websocket.disconnect", "code": None, "reason": None})
        assert [message async for message in connection] == []
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.reason) == (1005, "")


async def test_a_timeout_of_the_sinks_own_hits_the_write_only() -> None:
    """A middleware that bounds each send must not cancel whoever happened to broadcast."""
    manager, sink = ConnectionManager(), FaultySink()
    healthy = FaultySink()
    async with manager.connection(sink.websocket), manager.connection(healthy.websocket):
        sink.blocked = asyncio.Event()
        sink.send_timeout = 0.01
        await manager.broadcast("one")
        await until(lambda: manager.statistics().connections == 1)
        await manager.broadcast("two")
        assert (
            manager.statistics().evicted["write_failed"]
            + manager.statistics().evicted["send_timeout"]
            == 1
        )
        assert [event.get("text") for event in healthy.sent[1:]] == ["one", "two"]


async def test_middleware_around_send_keeps_its_context() -> None:
    """Context variables, anyio scopes and the current task stay the same through a blocked send."""
    manager, sink = ConnectionManager(), FaultySink()
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    plain_send, seen = sink.websocket._send, []

    async def send(event: Message) -> None:
        token = variable.set("set")
        task = asyncio.current_task()
        assert task is not None
        task.get_name()
        with anyio.fail_after(5):
            await plain_send(event)
        seen.append(asyncio.current_task() is task)
        variable.reset(token)

    sink.websocket._send = send
    async with manager.connection(sink.websocket):
        sink.blocked = asyncio.Event()
        await manager.broadcast("one")
        assert variable.get() == "unset"
        sink.blocked.set()
        await until(lambda: manager.statistics().sent == 1)
        assert manager.statistics().connections == 1
    assert seen == [True, True, True]


async def test_a_send_that_is_cancelled_at_once_is_a_failed_write() -> None:
    """A server's own CancelledError in a send must not cancel whoever broadcasts."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket):
        sink.fault = asyncio.CancelledError()
        await manager.broadcast("into the void")
        assert manager.statistics().evicted["write_failed"] == 1
        assert manager.statistics().queued == 0
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.fault = asyncio.CancelledError()
        await connection.close()


async def test_the_end_survives_a_second_cancellation() -> None:
    """A handler that is cancelled while it closes leaves no reader behind."""
    manager, sink = ConnectionManager(), FaultySink()

    async def handle() -> None:
        async with manager.connection(sink.websocket) as connection:
            sink.blocked = asyncio.Event()
            await connection.receive()

    task = asyncio.create_task(handle())
    await until(lambda: sink.blocked)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({task})
    assert manager.active_connections == []
    assert sink.blocked is not None
    sink.blocked.set()


async def test_a_close_event_needs_neither_code_nor_reason() -> None:
    """ASGI makes both optional, also for who sends raw events."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        await sink.websocket.send({"type": "websocket.close"})
        assert connection.closed is not None
        assert connection.closed.code == 1000


async def test_a_reason_that_is_no_string_is_made_one() -> None:
    """An app's own WebSocketException may carry anything; the peer still gets its code."""
    manager, sink = ConnectionManager(), FaultySink()
    with pytest.raises(WebSocketException):
        async with manager.connection(sink.websocket):
            raise WebSocketException(1008, {"detail": "no"})  # type: ignore[arg-type]
    assert sink.sent[-1]["code"] == 1008


async def test_what_was_written_makes_room_to_queue_again() -> None:
    """The outbox's bound is on what waits: a peer may block, and catch up, again and again."""
    options = OutboxOptions(max_bytes=100, send_timeout=5)
    manager, sink = ConnectionManager(outbox=options), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        for _ in range(3):
            sink.blocked = asyncio.Event()
            for _ in range(3):
                await manager.broadcast("x" * 50)
            assert (connection.outbox.messages, connection.outbox.bytes) == (3, 100)
            sink.blocked.set()
            await until(lambda: not connection.outbox.messages)
            assert connection.outbox.bytes == 0
        assert manager.statistics().sent == 9


async def test_a_sender_waits_no_longer_than_send_timeout_for_a_peer_that_drips() -> None:
    """Each write is in time, but those who wait for room are not kept for ever: the peer goes."""
    options = OutboxOptions(max_messages=1, send_timeout=0.2)
    manager, sink = ConnectionManager(outbox=options), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.yields, sink.pace = True, 0.15
        sends = [connection.send(str(number)) for number in range(8)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert any(isinstance(outcome, WebSocketDisconnect) for outcome in outcomes)
        assert manager.statistics().evicted["send_timeout"] == 1
        sink.yields = False


async def test_a_failed_accept_is_the_end_also_if_the_server_says_no_more() -> None:
    """Row 15: a peer lost in its handshake is never registered, whatever receive() does then."""
    manager, sink = ConnectionManager(), FaultySink()
    sink.fault = OSError("gone")
    async with manager.connection(sink.websocket, user="ann", rooms=["tea"]) as connection:
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.by) == (1006, "peer")
        assert manager.active_connections == []
        assert manager.room("tea").members == []


async def test_the_deadline_of_a_write_ends_with_it() -> None:
    """A peer that blocked for a moment is not cut off later for that."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=0.3))
    sink = FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        await manager.broadcast("blocks")
        sink.blocked.set()
        await until(lambda: manager.statistics().sent == 1)
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(0.4, over.set)  # after the deadline that the write had
        await over.wait()
        assert connection.closed is None


async def test_a_send_that_only_yields_is_finished() -> None:
    """A server that gives the loop a turn in each send delivers everything, in order."""
    manager, sink = ConnectionManager(), FaultySink()
    sink.yields = True
    async with manager.connection(sink.websocket):
        for number in range(5):
            await manager.broadcast(str(number))
    assert [event.get("text") for event in sink.sent] == [None, "0", "1", "2", "3", "4", None]


async def test_a_send_that_is_no_coroutine_will_do() -> None:
    """ASGI asks for an awaitable: a server written in another language returns a future."""
    manager, sink = ConnectionManager(), FaultySink()
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[None]] = []

    def send(event: Message) -> asyncio.Future[None]:
        sink.sent.append(event)
        futures.append(loop.create_future())
        return futures[-1]

    await sink.websocket.accept()
    sink.websocket._send = send
    async with manager.connection(sink.websocket) as connection:
        await manager.broadcast("one")
        await manager.broadcast("two")
        closing = asyncio.create_task(connection.close())
        for number in range(3):
            await until(partial(futures.__getitem__, slice(number, None)))
            futures[number].set_result(None)
        await closing
    assert [event.get("text") for event in sink.sent] == [None, "one", "two", None]


async def test_a_future_that_others_await_too_is_shared() -> None:
    """Two blocked sends may wait for one future, as for the one lock of a server."""
    manager = ConnectionManager()
    sinks = [FaultySink(), FaultySink()]
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with (
        manager.connection(sinks[0].websocket),
        manager.connection(sinks[1].websocket),
    ):
        for sink in sinks:
            sink.gate = gate
        await manager.broadcast("through the gate")
        assert manager.statistics().queued == 2
        gate.set_result(None)
        await until(lambda: manager.statistics().queued == 0)
        assert manager.statistics().sent == 2


async def test_a_server_that_cancels_a_send_lost_the_peer() -> None:
    """A send that ends as cancelled without our doing counts as a failed write."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket):
        sink.gate = asyncio.get_running_loop().create_future()
        await manager.broadcast("blocks")
        sink.gate.cancel()
        await until(lambda: manager.active_connections == [])
        assert manager.statistics().evicted["write_failed"] == 1


async def test_a_discarded_write_may_fail_as_it_likes() -> None:
    """What a cancelled send raises on its way out is nobody's concern."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        sink.on_cancel = LookupError("while cleaning up")
        await manager.broadcast("blocks")
        connection.abort()


async def test_a_background_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task whose owner awaits nothing does not fail in silence."""

    async def fail() -> None:
        raise LookupError("a defect of ours")

    tasks = TaskOwner()
    await asyncio.wait({tasks.start(fail(), name="wshub example")})
    await until(lambda: "a defect of ours" in caplog.text)
    assert "wshub example failed" in caplog.text
    await tasks.stop(timeout=1)


async def test_a_long_broadcast_lets_others_run() -> None:
    """The event loop gets a turn every 256 recipients: pings are answered meanwhile."""
    manager = ConnectionManager()
    sinks = await crowd(manager, 1000)
    sent = [0]

    async def look() -> None:
        while sent[-1] < len(sinks):
            sent.append(manager.statistics().sent)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    await manager.broadcast("to everyone")
    await looking
    assert max(after - before for before, after in pairwise(sent)) <= 256
    part(sinks)


async def test_a_receive_that_is_cancelled_as_a_message_comes_loses_nothing() -> None:
    """In the turn of the event loop in which it was about to return it: the next one does."""
    manager, sink = ConnectionManager(), FaultySink()
    async with manager.connection(sink.websocket) as connection:
        receiving = asyncio.create_task(connection.receive())
        await asyncio.sleep(0)
        sink.events.put_nowait({"type": "websocket.receive", "text": "hello"})
        while not manager.statistics().received:
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait({receiving})
        assert receiving.cancelled()
        assert await connection.receive(timeout=1) == "hello"
