"""The outbox in front of a sink that takes frames."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING, Protocol

from wshub._frames import PLAIN
from wshub._outbox import Outbox, OutboxHub, OutboxLink

if TYPE_CHECKING:
    from wshub._batch import Batch
    from wshub._eager import Start
    from wshub._farewell import Closure
    from wshub._flush import Flush
    from wshub._frames import FrameForm
    from wshub._sink import FrameSink
    from wshub.messages import Outgoing

__all__ = ("FramedOutbox",)

SETTLING = 1 / 8
"""Part of `send_timeout` for what the peer's system takes by itself, which is no progress."""


class _Hub(OutboxHub, Protocol):
    """What it needs of the manager it belongs to."""

    flush: Flush


class FramedOutbox(Outbox):
    """
    Collects what is put in one turn of the event loop, and writes it together.

    Outboxes that were given the same share what they have collected. `Flush` writes it, many in
    one loop, and comes to `settle()` with what a peer did not take at once.

    Attributes:
        form: What frames are to look like.
        descriptor: Where they may be written to now; negative: only the sink may write.
    """

    __slots__ = ("_flush", "_sink", "descriptor", "form")

    def __init__(self, sink: FrameSink, link: OutboxLink, hub: _Hub) -> None:
        super().__init__(link, hub)
        self.form: FrameForm = PLAIN
        self.descriptor: int = -1
        self._sink = sink
        self._flush = hub.flush
        self.pending = self._flush.empty

    @property
    def closure(self) -> Closure | None:
        """How the connection has ended, if it has."""
        return self._link.closure

    def has_room(self, outgoing: Outgoing) -> bool:
        """Whether it can be taken now; a batch that has no place for it leaves before."""
        batch = self.pending
        if batch is not None and batch.followed_by(outgoing) is None:
            self.flush()
        return super().has_room(outgoing)

    def flush(self) -> None:
        """Write what was collected in this turn."""
        batch = self.pending
        if batch is not None and batch.count:
            self.pending = self._flush.empty
            self.write(batch)

    def stop_accepting(self) -> None:
        """Take no more messages; those waiting still go out, those of this turn at once."""
        self.flush()
        super().stop_accepting()

    def discard(self) -> None:
        """Take no more messages and drop, counted, those that wait, and those of this turn."""
        batch = self.pending
        super().discard()
        if batch is not None and batch.count:
            self._drop("closed", batch.count)

    def write(self, batch: Batch) -> None:
        """Write a batch, as far as the peer takes it; the rest waits."""
        self._write_batch(batch)
        self._go_on()

    def settle(self, batch: Batch, written: int) -> None:
        """Go on with a batch of whose frames the peer has taken so many bytes."""
        self._settle(batch, written)
        self._go_on()

    def hold(self, messages: int) -> None:
        """Let what is put wait behind so many messages that `settle_held()` or the like is for."""
        self.pending = None
        self._counters.queued += messages
        self._writing = messages
        self._write = asyncio.get_running_loop().create_future()

    def settle_held(self, batch: Batch, written: int) -> None:
        """Do as `settle()`, after `hold()`."""
        if self._release():
            self.settle(batch, written)
            self._wake()

    def lose_held(self, messages: int, error: Exception) -> None:
        """Do as `lose()`, after `hold()`."""
        if self._release():
            self.lose(messages, error)

    def _release(self) -> bool:
        """Return whether it has not been discarded since `hold()`, with what that was for."""
        self._counters.queued -= self._writing
        held = self._end_write()
        if held is None:
            return False
        held.cancel()  # who waits for it looks again
        return True

    def lose(self, messages: int, error: Exception) -> None:
        """Give up so many messages, which are not counted as queued, and the peer, who is gone."""
        self._drop("closed", messages)
        self._link.evict("write_failed", error)

    def pour(self) -> None:
        """Hand everything that waits to the transport, whatever that holds already."""
        self.stop_accepting()
        waiting = self.messages
        if not waiting:
            return
        frames = b"".join(message.frame(self.form) for message in self._queue)
        try:
            write = self._sink.write(frames)
        except Exception:  # event loops raise what they like for a dead peer
            self.discard()
            return
        self._queue = ()
        self._waiting_bytes = 0
        self._end_write()
        if write is None:
            self._count_poured(waiting, lost=False)
        else:
            self._set_deadline()
            write.add_done_callback(
                lambda write: self._count_poured(waiting, lost=write.exception() is not None)
            )

    def _count_poured(self, messages: int, *, lost: bool) -> None:
        """Count what does not wait here any longer."""
        self._end_write()
        self._counters.queued -= messages
        if lost:
            self._drop("closed", messages)
        else:
            self._counters.sent += messages

    def _set_deadline(self) -> None:
        settling = self._options.send_timeout * SETTLING
        self._deadline = self._clock.call_later(
            settling, self._wait_for_progress, self._options.send_timeout - settling
        )

    def _wait_for_progress(self, seconds: float) -> None:
        self._deadline = self._clock.call_later(
            seconds, self._look_for_progress, self._sink.unsent_bytes
        )

    def _look_for_progress(self, before: int) -> None:
        """Bear with a peer that reads slowly but steadily."""
        if self._sink.unsent_bytes < before:
            self._set_deadline()
        else:
            self._link.evict("send_timeout", None)

    def _start(self, outgoing: Outgoing, start: Start) -> None:
        batch = self._flush.empty if self.pending is None else self.pending
        following = batch.followed_by(outgoing)
        if following is None:
            self.flush()
            self.put(outgoing, start)  # there is room for it now, or the peer blocks
            return
        self.pending = following
        if not batch.count:
            self._flush.add(self)

    def _go_on(self) -> None:
        while self._queue and self._write is None:
            batch = self._flush.empty.like()
            while self._queue and (following := batch.followed_by(self._queue[0])):
                self._take_next(self._queue)
                batch = following
            self._counters.queued -= batch.count
            self._write_batch(batch)
        if self._write is None and self._accepting:
            self.pending = self._flush.empty

    def _write_batch(self, batch: Batch) -> None:
        frames = batch.frames(self.form)
        if self.descriptor < 0:
            self._write_through(frames, batch.count)
            return
        try:
            written = os.write(self.descriptor, frames)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self.lose(batch.count, error)
            return
        self._settle(batch, written)

    def _settle(self, batch: Batch, written: int) -> None:
        """Leave what begins with the first message that was not taken whole to the transport."""
        form, sent, end = self.form, 0, 0
        for message in batch.messages:
            end += len(message.frame(form))
            if end > written:
                break
            sent += 1
        self._counters.sent += sent
        if sent == batch.count:
            return
        first, *rest = batch.messages[sent:]
        if rest:
            # A batch is within the bounds of the queue, which is empty, or held it before.
            self._queue = self._queue or deque()
            self._queue.extendleft(reversed(rest))
            self._waiting_bytes += sum(message.size for message in rest)
            self._counters.queued += len(rest)
        self._write_through(first.frame(form)[written - end :], 1)

    def _write_through(self, frames: bytes, messages: int) -> None:
        """Leave frames of so many messages, which are not counted yet, to the transport."""
        try:
            write = self._sink.write(frames)
        except Exception as error:  # event loops raise what they like for a dead peer
            self.lose(messages, error)
            return
        if write is None:
            self._counters.sent += messages
        else:
            self.pending = None
            self._counters.queued += messages
            self._block(write, messages)
