"""A handler may outlive its connection for a while: then it is cancelled, and ends quietly."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket

from tests.managed import ManagedApp, echo
from wshub import Connection, ConnectionManager, Limits, OutboxOptions
from wshub.testing import FakeClock, FaultySink, RawClient, connect, live_server, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Wait = Callable[[Connection], Awaitable[object]]

LEAVES = {"type": "websocket.disconnect", "code": 1001}


async def wait_for_ever(_: Connection) -> None:
    """Wait for something that never comes, and not for the peer."""
    await asyncio.Queue[None]().get()


async def wait_in_task_group(connection: Connection) -> None:
    """Wait in the body of a task group of asyncio's, and in a task of it."""
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for_ever(connection))
        await wait_for_ever(connection)


async def wait_for_task_group(connection: Connection) -> None:
    """Wait for a task group of asyncio's."""
    async with asyncio.TaskGroup() as group:
        group.create_task(wait_for_ever(connection))


async def wait_in_anyio_task_group(connection: Connection) -> None:
    """Wait in the body of a task group of anyio's, and in a task of it."""
    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_ever, connection)
        await wait_for_ever(connection)


async def wait_for_anyio_task_group(connection: Connection) -> None:
    """Wait for a task group of anyio's."""
    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_ever, connection)


async def wait_with_deadline(connection: Connection) -> None:
    """Wait inside deadlines of both libraries that are not over."""
    async with asyncio.timeout(1000):
        with anyio.fail_after(1000):
            await wait_for_ever(connection)


async def wait_in_gather(connection: Connection) -> None:
    """Wait for several things at once."""
    await asyncio.gather(wait_for_ever(connection), wait_for_ever(connection))


class Outcome:
    """
    Runs a block of `connection()` over a sink, in a task of its own.

    Attributes:
        task: The task.
        connection: Its connection, once there is one.
        left: Whether the code behind the block ran to its end.
        cancelling: Requests to cancel the task that were open behind the block.
    """

    def __init__(self, manager: ConnectionManager, sink: FaultySink, wait: Wait) -> None:
        self.connection: Connection | None = None
        self.left = False
        self.cancelling: int | None = None
        self.task = asyncio.create_task(self._run(manager, sink, wait))

    async def _run(self, manager: ConnectionManager, sink: FaultySink, wait: Wait) -> None:
        async with manager.connection(sink.websocket) as connection:
            self.connection = connection
            await wait(connection)
        self.cancelling = self.task.cancelling()
        await asyncio.sleep(0)
        self.left = True


@asynccontextmanager
async def one_that_left(
    wait: Wait, handler_grace: float | None = 10.0
) -> AsyncIterator[tuple[Outcome, FakeClock]]:
    """Give a handler that waits, whose peer has left, and the clock of its manager."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(clock=clock, handler_grace=handler_grace)
    outcome = Outcome(manager, sink, wait)
    await until(lambda: outcome.connection)
    sink.events.put_nowait(LEAVES)
    await until(lambda: not manager.active_connections)
    yield outcome, clock
    await asyncio.wait({outcome.task})
    assert clock.waiting == 0


async def test_a_handler_that_waits_for_something_else_is_cancelled(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Need 9: its client is gone, nobody else ends it, and it ends without an error."""
    clock = FakeClock()
    managed = ManagedApp(wait_for_ever, ConnectionManager(clock=clock))
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws"):
            await until(lambda: managed.opened)
        await until(lambda: managed.opened[0].closed)
        await clock.advance(9.9)
        assert managed.outcomes == []
        await clock.advance(0.1)
        await until(lambda: managed.outcomes == [None])
        await until(lambda: not server.uvicorn.server_state.tasks)
    assert "ERROR" not in caplog.text


@pytest.mark.parametrize(
    "wait",
    [
        wait_for_ever,
        wait_in_task_group,
        wait_for_task_group,
        wait_in_anyio_task_group,
        wait_for_anyio_task_group,
        wait_with_deadline,
        wait_in_gather,
    ],
)
async def test_only_the_block_is_cancelled(wait: Wait) -> None:
    """The code behind it runs, in a task that nobody asked to end, however the block waited."""
    async with one_that_left(wait) as (outcome, clock):
        await clock.advance(9.9)
        assert not outcome.task.done()
        await clock.advance(0.1)
        await outcome.task
        assert outcome.left
        assert outcome.cancelling == 0


async def test_a_handler_that_ends_in_time_is_left_alone() -> None:
    """What it still has to do for its client it may do."""
    saved: list[str] = []

    async def save(connection: Connection) -> None:
        async for _ in connection:
            raise AssertionError("nothing was sent")  # pragma: no cover
        await go_on.wait()
        saved.append("all of it")

    go_on = asyncio.Event()
    async with one_that_left(save) as (outcome, clock):
        await clock.advance(9.9)
        go_on.set()
        await outcome.task
        await clock.advance(100)
        assert outcome.left
        assert saved == ["all of it"]


async def test_without_a_grace_a_handler_has_one_turn() -> None:
    """With 0 a loop over the connection ends by itself still, and a wait is cut short."""
    ended = []

    async def loop(connection: Connection) -> None:
        async for _ in connection:
            raise AssertionError("nothing was sent")  # pragma: no cover
        ended.append("by itself")
        await wait_for_ever(connection)

    async with one_that_left(loop, handler_grace=0) as (outcome, clock):
        await clock.advance(0)
        await outcome.task
        assert outcome.left
        assert ended == ["by itself"]


async def test_with_none_a_handler_is_never_cancelled() -> None:
    """The app then ends it, or waits for it when it stops."""
    async with one_that_left(wait_for_ever, handler_grace=None) as (outcome, clock):
        await clock.advance(1_000_000)
        assert not outcome.task.done()
        outcome.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outcome.task


@pytest.mark.parametrize("grace", [-1, float("nan")])
def test_a_grace_is_not_negative(grace: float) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match=f"handler_grace must be 0 or more seconds, not {grace}"):
        ConnectionManager(handler_grace=grace)


async def test_a_handler_of_a_client_that_was_never_accepted_is_cancelled_too() -> None:
    """A connection that is over from the start gives its block the same time."""
    clock, sink = FakeClock(), FaultySink()
    sink.fault = OSError("gone")
    outcome = Outcome(ConnectionManager(clock=clock), sink, wait_for_ever)
    await until(lambda: outcome.connection)
    await clock.advance(10)
    await outcome.task
    assert outcome.left


async def test_an_end_by_the_app_itself_counts_too() -> None:
    """Whoever closes or evicts the connection, its handler has the same time to see it."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    outcomes = [Outcome(manager, FaultySink(), wait_for_ever) for _ in range(2)]
    await until(lambda: manager.statistics().connections == 2)
    first, second = (outcome.connection for outcome in outcomes)
    assert first is not None
    assert second is not None
    await first.close(4000)
    second.abort()
    await clock.advance(9.9)
    assert not any(outcome.task.done() for outcome in outcomes)
    await clock.advance(0.1)
    await asyncio.gather(*(outcome.task for outcome in outcomes))
    assert all(outcome.left for outcome in outcomes)


async def test_at_a_shutdown_a_handler_has_one_second() -> None:
    """A server that says 1012 waits for its handlers; less than a second stays less."""
    for grace, due in ((10.0, 1.0), (0.5, 0.5)):
        clock, sink = FakeClock(), FaultySink()
        outcome = Outcome(ConnectionManager(clock=clock, handler_grace=grace), sink, wait_for_ever)
        await until(lambda: outcome.connection)  # noqa: B023  (called in this round)
        sink.events.put_nowait({"type": "websocket.disconnect", "code": 1012})
        await clock.advance(due - 0.1)
        assert not outcome.task.done()
        await clock.advance(0.1)
        await outcome.task
        assert outcome.left


# --- cancellations that are somebody else's


async def test_a_cancellation_by_others_is_not_swallowed() -> None:
    """Whether it comes before, with or after the one of the grace, the task ends as cancelled."""
    for early, late in ((True, False), (False, True), (True, True)):
        held = asyncio.Event()

        async def hold(connection: Connection) -> None:
            try:
                await wait_for_ever(connection)
            finally:
                await held.wait()  # noqa: B023  (called in this round)

        async with one_that_left(hold) as (outcome, clock):
            if early:
                outcome.task.cancel()
                await asyncio.sleep(0)
            await clock.advance(10)
            if late:
                outcome.task.cancel()
            held.set()
            with pytest.raises(asyncio.CancelledError):
                await outcome.task
            assert not outcome.left
            assert outcome.task.cancelled()


async def test_a_cancellation_while_the_connection_is_open_closes_with_1001() -> None:
    """The grace has not begun: nothing is taken back."""
    clock, sink = FakeClock(), FaultySink()
    outcome = Outcome(ConnectionManager(clock=clock), sink, wait_for_ever)
    await until(lambda: outcome.connection)
    outcome.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outcome.task
    assert sink.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": ""}
    assert clock.waiting == 0


async def test_what_goes_wrong_after_the_cancellation_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler that fails to put things in order is logged, and its error raised on."""

    async def fail(connection: Connection) -> None:
        try:
            await wait_for_ever(connection)
        finally:
            raise ZeroDivisionError

    async with one_that_left(fail) as (outcome, clock):
        await clock.advance(10)
        with pytest.raises(ZeroDivisionError):
            await outcome.task
    assert "failed: ZeroDivisionError; closing with 1011" in caplog.text


async def test_a_handler_that_takes_its_cancellation_for_a_return() -> None:
    """One that swallows it and returns leaves no request to cancel behind."""

    async def swallow(connection: Connection) -> None:
        with suppress(asyncio.CancelledError):
            await wait_for_ever(connection)

    async with one_that_left(swallow) as (outcome, clock):
        await clock.advance(10)
        await outcome.task
        assert outcome.left
        assert outcome.cancelling == 0


async def test_a_handler_that_goes_on_after_its_cancellation_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody can end it; the log says once which one holds up a shutdown."""
    caplog.set_level(logging.INFO, logger="wshub")
    go_on = asyncio.Event()

    async def ignore(connection: Connection) -> None:
        try:
            await wait_for_ever(connection)
        except asyncio.CancelledError:
            await go_on.wait()

    async with one_that_left(ignore) as (outcome, clock):
        await clock.advance(10.9)
        assert outcome.connection is not None
        name = outcome.connection.id
        cancelled = f"cancelling the handler of {name}: its connection is over"
        assert [record.getMessage() for record in caplog.records] == [cancelled]
        await clock.advance(100)
        lines = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert lines == [
            ("INFO", cancelled),
            ("WARNING", f"the handler of {name} goes on after its cancellation"),
        ]
        assert not outcome.task.done()
        go_on.set()
        await outcome.task
        assert outcome.left


# --- other ways to have a handler


async def test_a_connection_in_a_dependency(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """The block may be the one of a dependency with `yield`: what it cuts short is the endpoint."""
    clock = FakeClock()
    manager = ConnectionManager(clock=clock)
    app = FastAPI()
    after = []

    async def get_connection(websocket: WebSocket) -> AsyncIterator[Connection]:
        async with manager.connection(websocket) as connection:
            yield connection
        after.append("the block")

    @app.websocket("/ws")
    async def endpoint(
        connection: Connection = Depends(get_connection),  # noqa: B008  (it is local)
    ) -> None:
        await connection.send("welcome")
        await wait_for_ever(connection)

    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert await client.receive() == "welcome"
        await until(lambda: not manager.active_connections)
        await clock.advance(10)
        await until(lambda: after == ["the block"])
        await until(lambda: not server.uvicorn.server_state.tasks)
    assert "ERROR" not in caplog.text


async def test_a_handler_of_the_tutorial_is_never_cancelled() -> None:
    """`connect()` has no block: where its handler ends is for the handler to know."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(clock=clock)

    async def handle() -> None:
        connection = await manager.connect(sink.websocket)
        await wait_for_ever(connection)

    task = asyncio.create_task(handle())
    await until(lambda: manager.active_connections)
    sink.events.put_nowait(LEAVES)
    await until(lambda: not manager.active_connections)
    await clock.advance(1000)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


async def test_what_a_server_raises_for_a_close_that_was_given_up_concerns_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is looked at, so that asyncio does not complain of it later."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(clock=clock, handler_grace=None)
    async with manager.connection(sink.websocket) as connection:
        sink.blocked = asyncio.Event()
        sink.on_cancel = OSError("gone")
        closing = asyncio.create_task(connection.close())
        await clock.advance(10)
        await closing
    await clock.advance(0)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_peer_that_never_answers_a_close_holds_its_handler_for_send_timeout_at_most(
    ws: str,
) -> None:
    """Not all servers wait for the answer in the background; what they then do is cut short."""
    limits = Limits(message_bytes=1)
    outbox = OutboxOptions(send_timeout=0.3)
    managed = ManagedApp(echo, ConnectionManager(limits=limits, outbox=outbox))
    async with (
        live_server(managed.app, ws=ws) as server,
        RawClient(f"{server.ws}/ws") as silent,
    ):
        await silent.send_frame(1, b"too long")
        await until(lambda: managed.outcomes == [None], timeout=3)
