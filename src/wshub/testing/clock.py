"""A clock that a test turns by hand."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("FakeClock", "FakeTimer")

TURNS = 20
"""Turns of the event loop for what a callback set going, before the next one."""


class FakeTimer:
    """A callback that waits for its time on a `FakeClock`."""

    __slots__ = ("_args", "_callback", "_number", "cancelled", "when")

    def __init__(
        self, when: float, number: int, callback: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        self.when: float = when
        self.cancelled: bool = False
        self._number = number
        self._callback = callback
        self._args = args

    def __lt__(self, other: FakeTimer) -> bool:
        return (self.when, self._number) < (other.when, other._number)

    def cancel(self) -> None:
        """Do not call back. Idempotent."""
        self.cancelled = True

    def call(self) -> None:
        """Call back, unless it was cancelled."""
        if not self.cancelled:
            self._callback(*self._args)


class FakeClock:
    """
    A clock for `ConnectionManager(clock=…)` on which time passes only in `advance()`.

    Every timeout of the manager goes by it: `send_timeout`, heartbeats, idleness, token buckets,
    draining. Sockets and the server keep their own time.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._count = 0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        """Return the seconds that have passed in `advance()`."""
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> FakeTimer:
        """Call `callback(*args)` once `delay` seconds have passed in `advance()`."""
        self._count += 1
        timer = FakeTimer(self._now + max(0, delay), self._count, callback, args)
        heappush(self._timers, timer)
        return timer

    @property
    def waiting(self) -> int:
        """Timers that wait for their time and are not cancelled."""
        return sum(not timer.cancelled for timer in self._timers)

    async def advance(self, seconds: float) -> None:
        """
        Let `seconds` pass: call back in order, and let what that set going run in between.

        Cancelling leaves the clock where it is.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        until = self._now + seconds
        await _take_turns()
        while self._timers and self._timers[0].when <= until:
            timer = heappop(self._timers)
            self._now = timer.when
            timer.call()
            await _take_turns()
        self._now = until


async def _take_turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
