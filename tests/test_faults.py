"""Servers that fail in ways that real ones seldom show, over a hand-made ASGI connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.server import until
from wshub import ConnectionManager, OutboxOptions
from wshub._sink import AsgiSink
from wshub._tasks import TaskOwner
from wshub.messages import encode

if TYPE_CHECKING:
    from starlette.types import Message


class FaultyServer:
    """
    The server's side of one ASGI WebSocket, with a fault to be set.

    Attributes:
        sent: Events that the app sent.
        fault: Raised by every send from now on.
        blocked: While set, sends wait for it after they began.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.blocked: asyncio.Event | None = None
        scope = {"type": "websocket", "headers": [], "subprotocols": []}
        # Plain functions: what an app gets behind middleware has no `__self__` to abort.
        self.websocket = WebSocket(scope, lambda: self._receive(), lambda event: self._send(event))

    async def _receive(self) -> Message:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _send(self, event: Message) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(event)


async def test_a_write_that_fails_evicts_the_peer() -> None:
    """Row 1: whatever the server raises in a send, the peer is gone and the sender is not."""
    manager, server = ConnectionManager(), FaultyServer()
    async with manager.connection(server.websocket) as connection:
        server.fault = RuntimeError("Unexpected ASGI message 'websocket.send'")
        await manager.broadcast("into the void")
        assert manager.active_connections == []
        assert manager.statistics().evicted["write_failed"] == 1
        assert manager.statistics().dropped["closed"] == 1
        with pytest.raises(WebSocketDisconnect):
            await connection.send("x")


async def test_a_write_that_fails_later_evicts_the_peer() -> None:
    """A send that blocks and then fails ends the same way, with what waited counted."""
    manager, server = ConnectionManager(), FaultyServer()
    async with manager.connection(server.websocket):
        server.blocked = asyncio.Event()
        await manager.broadcast("blocks")
        await manager.broadcast("waits")
        assert manager.statistics().queued == 2
        server.fault = OSError("gone")
        server.blocked.set()
        await until(lambda: manager.active_connections == [])
        assert manager.statistics().evicted["write_failed"] == 1
        assert manager.statistics().dropped["closed"] == 2
        assert manager.statistics().queued == 0


async def test_a_close_that_fails_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Row 7: closing a peer whose server refuses the close frame ends quietly."""
    caplog.set_level(logging.DEBUG, logger="wshub")
    manager, server = ConnectionManager(), FaultyServer()
    async with manager.connection(server.websocket) as connection:
        server.fault = RuntimeError("response already completed")
        await connection.close(4000)
    assert "left before its close frame" in caplog.text


async def test_a_close_that_blocks_is_given_up() -> None:
    """Need 10: a close frame that never leaves ends with the deadline, also without a transport."""
    manager = ConnectionManager(outbox=OutboxOptions(send_timeout=0.05))
    server = FaultyServer()
    async with asyncio.timeout(5), manager.connection(server.websocket):
        server.blocked = asyncio.Event()
    assert [event["type"] for event in server.sent] == ["websocket.accept"]


async def test_a_receive_that_fails_is_a_disconnect() -> None:
    """Row 9: whatever the server raises in a receive, the handler's loop simply ends."""
    manager, server = ConnectionManager(), FaultyServer()
    async with manager.connection(server.websocket) as connection:
        server.events.put_nowait(RuntimeError("cannot call recv"))
        assert [message async for message in connection] == []
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.by) == (1006, "peer")


async def test_a_disconnect_without_a_code_is_1005() -> None:
    """ASGI allows a disconnect event without code and reason: RFC 6455 §7.1.5 calls it 1005."""
    manager, server = ConnectionManager(), FaultyServer()
    async with manager.connection(server.websocket) as connection:
        server.events.put_nowait({"type": "websocket.disconnect", "code": None, "reason": None})
        assert [message async for message in connection] == []
        assert connection.closed is not None
        assert (connection.closed.code, connection.closed.reason) == (1005, "")


async def test_a_loop_that_is_torn_down_leaves_no_half_written_message() -> None:
    """A blocked send whose task is destroyed closes the server's coroutine with it."""
    server = FaultyServer()
    ended: list[str] = []

    async def send(event: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event["type"])

    rest: Any = AsgiSink(server.websocket.receive, send).write(encode("x"))
    rest.send(None)
    rest.close()
    assert ended == ["websocket.send"]


async def test_a_background_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task whose owner awaits nothing does not fail in silence."""

    async def fail() -> None:
        raise LookupError("a defect of ours")

    tasks = TaskOwner()
    await asyncio.wait({tasks.start(fail(), name="wshub example")})
    await until(lambda: "a defect of ours" in caplog.text)
    assert "wshub example failed" in caplog.text
    await tasks.stop(timeout=1)
