"""The handler inside a connection's block, which may outlive its connection for a while only."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wshub._clock import Clock, Timer

__all__ = ("Handler",)

logger = logging.getLogger("wshub")

PATIENCE = 1.0
"""Seconds for what a cancelled handler has to put in order, before the log says that it goes on."""


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

    def expect_end(self, clock: Clock, seconds: float | None) -> None:
        """Cancel it unless it settles within `seconds`; None: it may take its time."""
        if self._task is not None and seconds is not None:
            self._timer = clock.call_later(seconds, self._cancel, self._task, clock)

    def settle(self) -> None:
        """Call it off: the handler has left its block. Called by its own task."""
        if self._timer is not None:
            self._timer.cancel()
        if self._cancelled and self._task is not None:
            self._task.uncancel()
        self._task = None

    def _cancel(self, task: asyncio.Task[object], clock: Clock) -> None:
        logger.info("cancelling the handler of %s: its connection is over", self._name)
        self._cancelled = True
        task.cancel()
        self._timer = clock.call_later(PATIENCE, self._complain)

    def _complain(self) -> None:
        logger.warning("the handler of %s goes on after its cancellation", self._name)
