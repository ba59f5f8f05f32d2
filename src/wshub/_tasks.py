"""The owner of background tasks."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ("TaskOwner",)

T = TypeVar("T")

logger = logging.getLogger("wshub")


class TaskOwner:
    """Keeps the tasks it started until they end; logs those that fail; stops them all at once."""

    __slots__ = ("_done", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._done = self._settle  # one bound method, not one for each of 10,000 tasks

    def start(self, coroutine: Coroutine[object, object, T], *, name: str) -> asyncio.Task[T]:
        """Run `coroutine` in a task of its own, in the running event loop."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self, *, timeout: float) -> None:
        """Cancel all tasks and wait for them, at most `timeout` seconds."""
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def _settle(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)
