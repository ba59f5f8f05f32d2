"""A deadline that tells a server which does not answer from a worker that is behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ("Limit",)

LATE = 0.25
"""Seconds by which a timer may be late before the event loop counts as held up."""

RENEWALS = 4
"""Times that the seconds begin again, at most: who is behind for ever must not seem well."""


class Limit:
    """
    Does as `asyncio.timeout()`, but begins again if the server cannot be blamed for the delay.

    An answer that came while a handler held up the loop still waits in its socket, and one behind
    a backlog that arrives is under way. The block is cancelled, and TimeoutError raised at its end.

    A cancellation that the block has kept to itself is raised at its end, too: drivers wait with
    `asyncio.wait_for()`, which does that before Python 3.12 if it is cancelled as it comes to its
    end.

    Args:
        seconds: That the block has, some times over at most.
        progress: Returns something else than before if what is waited for has come nearer.
    """

    __slots__ = (
        "_cancelling",
        "_due",
        "_left",
        "_loop",
        "_progress",
        "_scope",
        "_seconds",
        "_seen",
        "_task",
        "_timer",
    )

    def __init__(self, seconds: float, progress: Callable[[], object] = lambda: None) -> None:
        self._seconds = seconds
        self._progress = progress
        self._left = RENEWALS
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        await self._scope.__aenter__()
        self._start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)
        if kind is None and self._task.cancelling() > self._cancelling:
            raise asyncio.CancelledError

    def _start(self) -> None:
        self._seen = self._progress()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        is_late = self._loop.time() - self._due > LATE
        if self._left and (is_late or self._progress() != self._seen):
            self._left -= 1
            self._start()
        else:
            self._scope.reschedule(self._due)
