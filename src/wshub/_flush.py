"""What outboxes collect in a turn of the event loop leaves at its end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import TYPE_CHECKING

from wshub._batch import make_empty_batch
from wshub._ring import ENTRIES, UNKNOWN, Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wshub._batch import Batch
    from wshub._clock import Clock
    from wshub._counters import Counters
    from wshub._framed_outbox import FramedOutbox
    from wshub._frames import FrameForm
    from wshub._outbox import Outbox, OutboxOptions
    from wshub.messages import Outgoing

__all__ = ("Flush",)

logger = logging.getLogger("wshub")

TURN = ENTRIES
"""Peers written to before the event loop gets a turn."""

FEW = 8
"""Peers up to which to prepare one system call for all takes longer than one for each."""


class Flush:
    """
    Writes what the outboxes of one manager have collected.

    Its loops are flat, without a call for each recipient but the one to the system, if there is
    one: beside that, a call costs as much as all the rest.

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
        "_ring",
        "_uses_ring",
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
        self._uses_ring = options.io_uring
        self._ring: Ring | None = None
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
            self._ring = make_ring() if self._uses_ring else None

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

    def _write(self, outboxes: Sequence[FramedOutbox]) -> None:
        if self._ring is not None and len(outboxes) > FEW:
            self._write_each(self._write_together(outboxes, self._ring))
        else:
            self._write_each(outboxes)

    def _write_together(
        self, outboxes: Iterable[FramedOutbox], ring: Ring
    ) -> Sequence[FramedOutbox]:
        """Write with one system call; return those that are to be written to by themselves."""
        empty = self.empty
        batch: Batch | None = None
        form: FrameForm | None = None
        descriptors: list[int] = []
        runs: list[tuple[list[int], bytes]] = []
        chosen: list[FramedOutbox] = []
        batches: list[Batch] = []
        others: list[FramedOutbox] = []
        results: list[int] = []
        try:
            for outbox in outboxes:
                pending = outbox.pending
                descriptor = outbox.descriptor
                if pending is None or pending is empty or descriptor < 0:
                    others.append(outbox)
                    continue
                if pending is not batch or outbox.form is not form:
                    batch, form = pending, outbox.form
                    descriptors = []
                    runs.append((descriptors, batch.frames(form)))
                outbox.pending = empty
                descriptors.append(descriptor)
                chosen.append(outbox)
                batches.append(pending)
            if runs:
                results = ring.send(runs)
        except BaseException:
            if ring.is_broken:  # it was writing, and to whom cannot be said
                results = [UNKNOWN] * len(chosen)
            raise
        finally:
            others += self._settle(chosen, batches, runs, results)
            if ring.is_broken:
                self._ring = None
                logger.warning("io_uring does not work any longer: each peer gets a system call")
        return others

    def _settle(
        self,
        outboxes: Sequence[FramedOutbox],
        batches: Sequence[Batch],
        runs: Iterable[tuple[Sequence[int], bytes]],
        results: Sequence[int],
    ) -> list[FramedOutbox]:
        """Count what was taken whole, go on with what was in part; return who took nothing."""
        nothing: list[FramedOutbox] = []
        partly: deque[tuple[FramedOutbox, Batch, int]] = deque()
        start = 0
        for descriptors, frames in runs:
            end = start + len(descriptors)
            size, found = len(frames), results[start:end]
            whole = found.count(size)
            if whole:
                self._counters.sent += whole * batches[start].count
            if whole < len(descriptors):
                for index in range(start, end):
                    result = results[index] if index < len(results) else 0
                    outbox, batch = outboxes[index], batches[index]
                    if result == UNKNOWN:
                        outbox.hold(batch.count)
                        partly.append((outbox, batch, result))
                    elif 0 < result < size:
                        outbox.hold(batch.count)  # a hook that hears of others may send to it
                        partly.appendleft((outbox, batch, result))  # before hooks hear
                    elif result != size:
                        outbox.pending = batch
                        nothing.append(outbox)
            start = end
        self._settle_held(partly)
        return nothing

    def _settle_held(self, partly: deque[tuple[FramedOutbox, Batch, int]]) -> None:
        try:
            while partly:
                outbox, batch, written = partly.popleft()
                if written == UNKNOWN:
                    outbox.lose_held(batch.count, ConnectionAbortedError("io_uring broke"))
                else:
                    outbox.settle_held(batch, written)
        finally:
            if partly:  # what a hook raises is nobody else's concern
                asyncio.get_running_loop().call_soon(self._settle_held, partly)

    def _write_each(self, outboxes: Iterable[FramedOutbox]) -> None:
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


def make_ring() -> Ring | None:
    """Return a ring, or None, with a warning, where the system has or permits none."""
    try:
        return Ring()
    except OSError as error:
        logger.warning("io_uring is not to be had (%s): each peer gets a system call", error)
        return None
