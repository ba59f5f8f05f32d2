"""A deadline that tells a server which does not answer from an event loop that was held up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("Limit",)

LATE = 0.25
"""Seconds by which a timer may be late before the event loop counts as held up."""


class Limit:
    """
    Does as `asyncio.timeout()`, but begins again if the event loop had no time meanwhile.

    An answer that came while a handler held up the loop still waits in its socket: it is not the
    server that was late. The block is cancelled, and TimeoutError raised at its end.
    """

    __slots__ = ("_due", "_loop", "_scope", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
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

    def _start(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        if self._loop.time() - self._due > LATE:
            self._start()
        else:
            self._scope.reschedule(self._due)
