"""
Start a coroutine in the caller's turn, and make it a task only if it has to wait.

Servers seldom make a send wait, and then a task and a turn of the event loop for each recipient
would cost more than the write itself.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

__all__ = ("start_eagerly",)


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


# One of the two is here, by the version of Python; tests/test_faults.py goes through either.
if sys.version_info >= (3, 12):  # pragma: no cover

    def start_eagerly(awaitable: Awaitable[None]) -> asyncio.Task[None] | None:
        """
        Run `awaitable` up to where it first waits.

        Returns:
            The task that goes on with it, or None if it is done. What it raises before it first
            waits is raised here.
        """
        coroutine = awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            return task
        task.result()
        return None

else:  # pragma: no cover
    from asyncio.tasks import _enter_task, _leave_task
    from types import coroutine

    class _StandIn:
        """
        The current task while there is none yet.

        `asyncio.timeout()` keeps it, and must not cancel the caller when it expires later.
        """

        __slots__ = ("__weakref__", "task")

        def __init__(self) -> None:
            self.task: asyncio.Task[None] | None = None

        def cancel(self, msg: object = None) -> bool:
            return self.task is not None and self.task.cancel(msg)

        def cancelling(self) -> int:
            return 0 if self.task is None else self.task.cancelling()

        def uncancel(self) -> int:
            return 0 if self.task is None else self.task.uncancel()

    def start_eagerly(awaitable: Awaitable[None]) -> asyncio.Task[None] | None:
        """
        Run `awaitable` up to where it first waits.

        Does what `asyncio.Task(eager_start=True)` does from Python 3.12 on, with the functions
        that asyncio documents for writing task types ("Extending", Task lifetime support).

        Returns:
            The task that goes on with it, or None if it is done. What it raises before it first
            waits is raised here.
        """
        steps = awaitable.__await__()
        loop = asyncio.get_running_loop()
        caller: Any = asyncio.current_task(loop)
        stand_in: Any = _StandIn()
        if caller is not None:
            _leave_task(loop, caller)
        _enter_task(loop, stand_in)
        try:
            awaited = next(steps)
        except StopIteration:
            return None
        finally:
            _leave_task(loop, stand_in)
            if caller is not None:
                _enter_task(loop, caller)
        if awaited is not None:
            # A task takes this mark off the future that it is handed; others may await it too.
            awaited._asyncio_future_blocking = False
        stand_in.task = loop.create_task(_await(_go_on(steps, awaited)))
        task: asyncio.Task[None] = stand_in.task
        return task

    @coroutine
    def _go_on(
        steps: Generator[Any, Any, None],
        awaited: Any,  # noqa: ANN401  (whatever the event loop understands)
    ) -> Generator[Any, Any, None]:
        if awaited is not None:
            awaited._asyncio_future_blocking = True
        while True:
            try:
                try:
                    value = yield awaited
                except BaseException as error:  # cancellation too is for the server to see
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(value)
            except StopIteration:
                return
