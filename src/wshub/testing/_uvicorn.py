"""uvicorn as a guest in somebody else's process."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("Server",)


TICK = 0.01
"""Seconds between two looks at whether to stop: a tenth of uvicorn's, as each test waits for it."""


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the test runner, and stops sooner."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def main_loop(self) -> None:
        """Run until it is time to stop."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            await asyncio.sleep(TICK)
