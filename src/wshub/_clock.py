"""Time, as far as timeouts need it: the event loop's, or one that a test turns by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("Clock", "LoopClock", "Timer", "limit_time", "sleep")


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Do not call back. Idempotent."""
        ...


class Clock(Protocol):
    """Tells the time and calls back later. Every event loop is one."""

    def time(self) -> float:
        """Return the time, in seconds from a start of its own choice; it never goes back."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback(*args)` in the event loop after `delay` seconds."""
        ...


class LoopClock:
    """The clock of whichever event loop is running."""

    __slots__ = ()

    def time(self) -> float:
        """Return the running loop's time, in seconds."""
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        """Call `callback(*args)` after `delay` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)


@asynccontextmanager
async def limit_time(clock: Clock, seconds: float | None) -> AsyncGenerator[None, None]:
    """Do as `asyncio.timeout()`, by `clock`. Raises TimeoutError."""
    async with asyncio.timeout(None) as scope:
        if seconds is None:
            yield
            return
        timer = clock.call_later(seconds, scope.reschedule, 0)
        try:
            yield
        finally:
            timer.cancel()


async def sleep(clock: Clock, seconds: float) -> None:
    """Do as `asyncio.sleep()`, by `clock`."""
    over = asyncio.Event()
    timer = clock.call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()
