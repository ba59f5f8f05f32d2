"""
Fixtures for pytest: `pytest_plugins = ["wshub.testing.fixtures"]` in the topmost `conftest.py`.

They need pytest-asyncio, in any of its modes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wshub.testing._extras import needing
from wshub.testing.clock import FakeClock
from wshub.testing.deadline import DEADLINE, until

with needing("wshub[testing]"):
    import pytest
    import pytest_asyncio

pytest.register_assert_rewrite("wshub.testing._worker", "wshub.testing.backends")

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("fake_clock", "nothing_left_behind")

PATIENCE = DEADLINE
"""Seconds that tasks have to end after a test."""


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return a clock for `ConnectionManager(clock=fake_clock)` that a test turns by hand."""
    return FakeClock()


@pytest_asyncio.fixture
async def nothing_left_behind() -> AsyncGenerator[None, None]:
    """Fail a test that leaves a task running in its event loop, after a little patience."""
    before = asyncio.all_tasks()
    yield

    def left() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - before - {asyncio.current_task()}

    try:
        await until(lambda: not left(), PATIENCE)
    except TimeoutError:
        pytest.fail(f"the test left tasks running: {sorted(map(repr, left()))}")
