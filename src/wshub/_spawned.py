"""The tasks that end with one connection."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from wshub.exceptions import CloseCode, ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ("SpawnedTasks",)

T = TypeVar("T")

logger = logging.getLogger("wshub")


class _Link(Protocol):
    """What spawned tasks need of the link that they belong to."""

    @property
    def closure(self) -> object:
        """How it ended, or None."""
        ...

    def start_closing(self, code: int, reason: str) -> object:
        """Close it without waiting."""
        ...


class SpawnedTasks:
    """Runs tasks beside the handler of the connection `name`; one that fails closes it."""

    __slots__ = ("_link", "_name", "running")

    def __init__(self, link: _Link, name: str) -> None:
        self._link = link
        self._name = name
        self.running: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run `coroutine` in a task of its own."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.running.add(task)
        task.add_done_callback(self._settle)
        return task

    def cancel(self) -> None:
        """Cancel all of them."""
        for task in self.running:
            task.cancel()

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        error = None if task.cancelled() else task.exception()
        is_over = self._link.closure is not None
        if error is None or (isinstance(error, ConnectionClosed) and is_over):
            return
        logger.error("%s of connection %s failed", task.get_name(), self._name, exc_info=error)
        self._link.start_closing(CloseCode.INTERNAL_ERROR, "internal error")
