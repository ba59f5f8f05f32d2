"""The handler inside a connection's block, which may outlive its connection for a while only."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wshub._clock import Clock, Timer

__all__ = ("Handler",)

logger = logging.getLogger("wshub")


class Handler:
    """
    The task that made it, as far as it has to end.

    Cancelling it works as in `asyncio.timeout()`: only the block is cut short, and `settle()`
    takes the cancellation back at its end.
    """

    __slots__ = ("_cancelled", "_name", "_task", "_timer")

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[object] | None = asyncio.current_task()
        self._timer: Timer | None = None
        self._cancelled = False

    def expect_end(self, clock: Clock, seconds: float) -> None:
        """Cancel it unless it settles within `seconds`."""
        if self._task is not None:
            self._timer = clock.call_later(seconds, self._cancel)

    def settle(self) -> None:
        """Call it off: the handler has left its block. Called by its own task."""
        if self._timer is not None:
            self._timer.cancel()
        if self._cancelled and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _cancel(self) -> None:
        if self._task is not None:
            logger.info("cancelling the handler of %s: its connection is over", self._name)
            self._cancelled = True
            self._task.cancel()
