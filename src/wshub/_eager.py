"""
Start a coroutine in the caller's turn, and make it a task only if it has to wait.

Servers seldom make a send wait, and then a task and a turn of the event loop for each recipient
would cost more than the write itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

__all__ = ("Start", "Starting", "start_eagerly")

Start = Callable[[Awaitable[None]], "asyncio.Future[None] | None"]
"""What begins a send: `start_eagerly()`, or what `Starting` gives."""


async def _await(awaitable: Awaitable[None]) -> None:
    await awaitable


# One of the two is here, by the version of Python; tests/test_faults.py goes through either.
if sys.version_info >= (3, 12):  # pragma: no cover

    def start_eagerly(awaitable: Awaitable[None]) -> asyncio.Future[None] | None:
        """
        Run `awaitable` up to where it first waits.

        Returns:
            The task that goes on with it, or None if it is done. What it raises before it first
            waits is raised here.
        """
        coroutine = awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            return task
        task.result()
        return None

    class Starting:
        """Gives a `Start` for many in a row."""

        def __enter__(self) -> Start:
            return start_eagerly

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            pass

else:  # pragma: no cover
    # Entering and leaving by `_enter_task()` and `_leave_task()` takes as long as the rest of a
    # start. This is the same dictionary, and Python 3.11 will not change any more.
    from asyncio.tasks import _current_tasks  # type: ignore[attr-defined]
    from contextvars import copy_context
    from types import CoroutineType

    _coroutine: Any = CoroutineType
    _current: Any = _current_tasks  # pyright: ignore[reportUnknownVariableType]

    class _StandIn:
        """
        The current task of a coroutine that began before it had one.

        Who asks for it in the first step, as `asyncio.timeout()` does, finds it in the later
        ones too, and what is done to it reaches the task that goes on with the coroutine.
        """

        __slots__ = ("__weakref__", "_caller", "_task")

        def __init__(self, caller: Any) -> None:
            self._caller = caller
            self._task: asyncio.Task[None] | None = None

        def __getattr__(self, name: str) -> Any:
            # Before there is a task, the caller's answers for it: it is the one that runs.
            return getattr(self._task or self._caller, name)

        def cancelling(self) -> int:
            return 0 if self._task is None else self._task.cancelling()

    def start_eagerly(awaitable: Awaitable[None]) -> asyncio.Future[None] | None:
        """
        Run `awaitable` up to where it first waits.

        Does what `asyncio.Task(eager_start=True)` does from Python 3.12 on.

        Returns:
            The task that goes on with it, or None if it is done. What it raises before it first
            waits is raised here.
        """
        with Starting() as start:
            return start(awaitable)

    class Starting:
        """
        Gives a `Start` for many in a row.

        Those that are done at once share one stand-in: for each to have its own would take as
        long as starting it.
        """

        __slots__ = ("_caller", "_loop", "_stand_in")

        def __enter__(self) -> Start:
            self._loop = asyncio.get_running_loop()
            self._caller = _current.get(self._loop)
            self._stand_in = _current[self._loop] = _StandIn(self._caller)
            return self._start

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            _restore(self._loop, self._caller)

        def _start(self, awaitable: Awaitable[None]) -> asyncio.Future[None] | None:
            steps: Any = awaitable if type(awaitable) is _coroutine else awaitable.__await__()
            context = copy_context()
            try:
                awaited = context.run(steps.send, None)
            except StopIteration:
                return None
            if awaited is not None:
                # A task takes this mark off the future that it is handed; others may await it too.
                awaited._asyncio_future_blocking = False
            loop, stand_in = self._loop, self._stand_in
            going_on = _await(_Rest(steps, awaited, loop, stand_in))
            task: asyncio.Task[None] = loop.create_task(going_on, context=context)
            stand_in._task, stand_in._caller = task, None
            self._stand_in = _current[loop] = _StandIn(self._caller)
            return task

    def _restore(loop: asyncio.AbstractEventLoop, task: Any) -> None:
        if task is None:
            del _current[loop]
        else:
            _current[loop] = task

    def _step(loop: asyncio.AbstractEventLoop, stand_in: Any, advance: Any, *args: Any) -> Any:
        """Take one step of a coroutine with `stand_in` as the current task."""
        caller = _current.get(loop)
        _current[loop] = stand_in
        try:
            return advance(*args)
        finally:
            _restore(loop, caller)

    class _Rest:
        """What is left of a started coroutine."""

        def __init__(
            self,
            steps: Generator[Any, Any, None],
            awaited: Any,
            loop: asyncio.AbstractEventLoop,
            stand_in: Any,
        ) -> None:
            self._steps = steps
            self._awaited = awaited
            self._loop = loop
            self._stand_in = stand_in

        def __await__(self) -> Generator[Any, Any, None]:
            awaited = self._awaited
            if awaited is not None:
                awaited._asyncio_future_blocking = True
            while True:
                try:
                    value = yield awaited
                except BaseException as error:  # cancellation too is for the server to see
                    step: Any = (self._steps.throw, error)
                else:
                    step = (self._steps.send, value)
                try:
                    awaited = _step(self._loop, self._stand_in, *step)
                except StopIteration:
                    return
