"""What outboxes collect in a turn of the event loop leaves at its end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from wshub._batch import make_empty_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wshub._batch import Batch
    from wshub._clock import Clock
    from wshub._counters import Counters
    from wshub._framed_outbox import FramedOutbox
    from wshub._frames import FrameForm
    from wshub._outbox import Outbox, OutboxOptions
    from wshub.messages import Outgoing

__all__ = ("Flush",)

TURN = 256
"""Peers written to before the event loop gets a turn."""


class Flush:
    """
    Writes what the outboxes of one manager have collected.

    Its two loops are flat, without a call for each recipient but the one to the system: beside
    that, a call costs as much as all the rest.

    Attributes:
        empty: What an outbox has collected that has collected nothing.
        runs: How often it has written.
    """

    __slots__ = (
        "_clock",
        "_collecting",
        "_counters",
        "_home",
        "_interval",
        "_leave_home",
        "_loop",
        "empty",
        "runs",
    )

    def __init__(
        self,
        options: OutboxOptions,
        counters: Counters,
        clock: Clock,
        leave_home: Callable[[], None],
    ) -> None:
        self.empty: Batch = make_empty_batch(options.max_messages, options.max_bytes)
        self._interval = options.flush_interval
        self._counters = counters
        self._clock = clock
        self._collecting: list[FramedOutbox] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        self._leave_home = leave_home
        self.runs: int = 0

    def add(self, outbox: FramedOutbox) -> None:
        """Take note that `outbox` has collected something."""
        self._collecting.append(outbox)
        self._schedule()

    def collect(self, message: Outgoing, outboxes: Iterable[Outbox]) -> list[Outbox]:
        """Let all outboxes that collect do so with `message`; return the others."""
        others: list[Outbox] = []
        empty, begun = self.empty, self._collecting
        batch = following = None
        for outbox in outboxes:
            pending = outbox.pending
            if pending is not batch:
                batch = pending
                following = None if pending is None else pending.followed_by(message)
            if following is None:
                others.append(outbox)
                continue
            if pending is empty:
                begun.append(outbox)  # type: ignore[arg-type]  # only a framed one has anything
            outbox.pending = following
        if begun:
            self._schedule()
        return others

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Work in `loop` from now on.

        If the one before was closed, so were its sockets, without a word to their protocols, and
        others may have their descriptors.
        """
        if loop is not self._home:
            home, self._home = self._home, loop
            if home is not None and home.is_closed():
                self._leave_home()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop = loop
        self.enter(loop)
        if self._interval:
            self._clock.call_later(self._interval, self._run)
        else:
            loop.call_soon(self._run)

    def _run(self) -> None:
        self.runs += 1
        collecting = self._collecting
        self._collecting, self._loop = collecting[TURN:], None
        if self._collecting:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._run)
        try:
            self._write(collecting[:TURN])
        except BaseException:
            self._collecting += collecting[:TURN]  # who was written to has nothing pending
            self._schedule()
            raise
        self.empty.forget()

    def _write(self, outboxes: Iterable[FramedOutbox]) -> None:
        empty, write, sent = self.empty, os.write, 0
        batch: Batch | None = None
        form: FrameForm | None = None
        frames, size, count = b"", 0, 0
        for outbox in outboxes:
            pending = outbox.pending
            if pending is None or pending is empty:
                continue  # it was discarded, or written before
            if pending is not batch or outbox.form is not form:
                batch, form = pending, outbox.form
                frames, count = batch.frames(form), batch.count
                size = len(frames)
            outbox.pending = empty
            descriptor = outbox.descriptor
            if descriptor < 0:
                outbox.write(pending)
                continue
            try:
                written = write(descriptor, frames)
            except BlockingIOError:
                outbox.settle(pending, 0)
                continue
            except OSError as error:
                outbox.lose(count, error)
                continue
            if written == size:
                sent += count
            else:
                outbox.settle(pending, written)
        self._counters.sent += sent
