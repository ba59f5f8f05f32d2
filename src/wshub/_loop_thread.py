"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

__all__ = ("LoopThread",)

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads, those with an event loop as well as those without."""

    def __init__(self, name: str) -> None:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._ended = asyncio.Event()
        # A daemon: a program that forgets to end it ends all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Coroutine[object, object, T]) -> Future[T]:
        """Run `coroutine`, and return a future; cancelling that cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def end(self, timeout: float) -> None:
        """Cancel what still runs, close the loop and end the thread. Called once."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(timeout)

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._wait())

    async def _wait(self) -> None:
        await self._ended.wait()
