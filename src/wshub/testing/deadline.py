"""Waits that end: a test that waits for what never comes fails, and says what it waited for."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("DEADLINE", "deadline", "until", "wait_until")

DEADLINE = 10.0
"""Seconds after which what a test waits for counts as never coming, unless it says otherwise."""

INTERVAL = 0.005
"""Seconds between two looks at a condition."""


@asynccontextmanager
async def deadline(seconds: float, awaited: str) -> AsyncGenerator[None, None]:
    """Cancel the block after `seconds`, and raise TimeoutError that names what was `awaited`."""
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise TimeoutError(f"waited {seconds:g} seconds for {awaited}") from None
        raise


async def until(
    condition: Callable[[], object], timeout: float = DEADLINE, *, awaited: str | None = None
) -> None:
    """
    Give the event loop turns until `condition()` is true.

    Raises:
        TimeoutError: It was not within `timeout` seconds; names what was `awaited`, or else shows
            the condition.
    """
    async with deadline(timeout, awaited or _source_of(condition)):
        while not condition():
            await asyncio.sleep(INTERVAL)


def wait_until(
    condition: Callable[[], object], timeout: float = DEADLINE, *, awaited: str | None = None
) -> None:
    """
    Block this thread until `condition()` is true: `until()` for tests without an event loop.

    Raises:
        TimeoutError: It was not within `timeout` seconds; names what was `awaited`, or else shows
            the condition.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            name = awaited or _source_of(condition)
            raise TimeoutError(f"waited {timeout:g} seconds for {name}")
        time.sleep(INTERVAL)


def _source_of(condition: Callable[[], object]) -> str:
    try:
        source = inspect.getsource(condition)
    except (OSError, TypeError):
        return repr(condition)
    return " ".join(source.split())
