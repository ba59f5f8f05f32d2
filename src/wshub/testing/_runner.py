"""Where a server runs: a task of the running event loop, or a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol

from wshub.testing._extras import needing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ("EventLoop", "Runner", "TaskRunner", "ThreadRunner")

EventLoop = Literal["asyncio", "uvloop"]

NAME = "wshub live server"


class Runner(Protocol):
    """Runs one coroutine that ends by itself when told to, or is cancelled."""

    def start(self, coroutine: Coroutine[object, object, None]) -> None:
        """Begin. Called once."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the coroutine has ended, and whatever it ran in."""
        ...

    def cancel(self) -> None:
        """Cancel the coroutine."""
        ...


class TaskRunner:
    """Runs in the event loop of whoever starts it."""

    def start(self, coroutine: Coroutine[object, object, None]) -> None:
        """Begin. Called once."""
        self._task = asyncio.create_task(coroutine, name=NAME)

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self._task.done()

    def cancel(self) -> None:
        """Cancel the task."""
        self._task.cancel()


class ThreadRunner:
    """Runs in a thread, with an event loop that is closed at its end."""

    def __init__(self, loop: EventLoop) -> None:
        self._new_loop = _loop_factory(loop)

    def start(self, coroutine: Coroutine[object, object, None]) -> None:
        """Begin. Called once."""
        self._loop = self._new_loop()
        # A daemon: a handler that blocks its thread for ever must not keep the process too.
        self._thread = threading.Thread(target=self._run, args=(coroutine,), name=NAME, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Cancel all that runs in the thread's loop."""
        with suppress(RuntimeError):  # it has just been closed
            self._loop.call_soon_threadsafe(self._cancel_all)

    def _run(self, coroutine: Coroutine[object, object, None]) -> None:
        with (
            asyncio.Runner(loop_factory=lambda: self._loop) as runner,
            suppress(asyncio.CancelledError),
        ):
            runner.run(coroutine)

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()


def _loop_factory(loop: EventLoop) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "asyncio":
        return asyncio.new_event_loop
    if loop == "uvloop":
        with needing("uvloop"):
            import uvloop
        return uvloop.new_event_loop
    raise ValueError(f"loop must be 'asyncio' or 'uvloop', or None for the running one: {loop!r}")
