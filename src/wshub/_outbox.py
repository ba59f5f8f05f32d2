"""The bounded queue in front of one peer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from wshub._clock import limit_time
from wshub._eager import start_eagerly

if TYPE_CHECKING:
    from wshub._batch import Batch
    from wshub._clock import Clock, Timer
    from wshub._counters import Counters
    from wshub._eager import Start
    from wshub._farewell import Closure
    from wshub._sink import EventSink
    from wshub.events import DropReason, EvictionReason
    from wshub.messages import Outgoing

__all__ = ("EventOutbox", "Outbox", "OutboxHub", "OutboxLink", "OutboxOptions")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxOptions:
    """
    Bounds of the queue in front of each peer.

    Attributes:
        max_messages: Messages that may wait for one peer, besides the one that it blocks.
        max_bytes: Bytes of payload that may wait for one peer. One message of any size may wait
            alone.
        overflow: What a broadcast does to a peer whose queue is full: `"disconnect"` cuts the
            peer off with 1013, `"drop_oldest"` and `"drop_newest"` drop one message, counted.
        send_timeout: Seconds for which a peer may block one write before it is cut off with
            1013, and the longest time that a close waits for what is queued. With
            `wshub.uvicorn.FanoutProtocol` a peer that goes on reading does not block.
        flush_interval: Seconds for which messages are collected so that they leave in one write;
            0: those of one turn of the event loop. Only with `wshub.uvicorn.FanoutProtocol`.
        compress_from: Bytes of payload below which a message is not compressed. Only with
            `wshub.uvicorn.FanoutProtocol`.
        io_uring: Write to many peers with one system call, where the system permits that: Linux
            5.18 or newer on x86-64 or 64-bit ARM, and no container that forbids it, as Docker's
            do by default. Otherwise a warning is logged, and each peer gets a system call. Only
            with `wshub.uvicorn.FanoutProtocol`, and not over TLS.

    Raises:
        ValueError: A bound is not positive, `flush_interval` or `compress_from` is negative, or
            `overflow` is none of the three words.
    """

    max_messages: int = 1024
    max_bytes: int = 1024 * 1024
    overflow: Literal["disconnect", "drop_oldest", "drop_newest"] = "disconnect"
    send_timeout: float = 10.0
    flush_interval: float = 0.0
    compress_from: int = 128
    io_uring: bool = False

    def __post_init__(self) -> None:
        for field in ("max_messages", "max_bytes", "send_timeout"):
            if not getattr(self, field) > 0:
                message = f"{field} must be positive, not {getattr(self, field)!r}"
                raise ValueError(message)
        for field in ("flush_interval", "compress_from"):
            if not getattr(self, field) >= 0:
                message = f"{field} must not be negative, as {getattr(self, field)!r} is"
                raise ValueError(message)
        if self.overflow not in {"disconnect", "drop_oldest", "drop_newest"}:
            message = (
                f"overflow must be 'disconnect', 'drop_oldest' or 'drop_newest', "
                f"not {self.overflow!r}"
            )
            raise ValueError(message)


class OutboxHub(Protocol):
    """What an outbox needs of the manager it belongs to."""

    outbox_options: OutboxOptions
    counters: Counters
    clock: Clock


class OutboxLink(Protocol):
    """
    What an outbox needs of the link it belongs to.

    Attributes:
        closure: How the connection has ended, if it has.
    """

    closure: Closure | None

    def evict(self, cause: EvictionReason, error: BaseException | None) -> None:
        """Give the peer up, which cannot be served any longer; `discard()` must follow."""
        ...

    def report_drop(self, reason: DropReason, count: int) -> None:
        """Tell hooks that messages were dropped."""
        ...


class Outbox(ABC):
    """
    Puts messages into a sink in order, and holds them while the peer blocks.

    While nothing waits and the peer is writable, there is no queue and no task. While the peer
    blocks, the write that it blocks is the one task.

    Attributes:
        pending: What was collected in this turn, if this outbox collects and the peer is
            writable; otherwise None, and `put()` is the one way in.
    """

    __slots__ = (
        "_accepting",
        "_clock",
        "_counters",
        "_deadline",
        "_link",
        "_options",
        "_queue",
        "_space",
        "_waiting_bytes",
        "_write",
        "_writing",
        "pending",
    )

    def __init__(self, link: OutboxLink, hub: OutboxHub) -> None:
        self._link = link
        self._options = hub.outbox_options
        self._counters = hub.counters
        self._clock = hub.clock
        self._accepting = True
        # Most peers never block: an empty deque would be the largest part of their memory.
        self._queue: deque[Outgoing] | tuple[()] = ()
        self._waiting_bytes = 0
        self._write: asyncio.Future[None] | None = None
        self._writing = 0
        self._deadline: Timer | None = None
        self._space: _Space | None = None
        self.pending: Batch | None = None

    @property
    def messages(self) -> int:
        """Messages that wait, those being written included."""
        return len(self._queue) + self._writing

    @property
    def bytes(self) -> int:
        """Bytes of payload that wait in the queue."""
        return self._waiting_bytes

    def has_room(self, outgoing: Outgoing) -> bool:
        """Whether `outgoing` can be taken now within the bounds."""
        if not self._queue:
            return True
        return (
            len(self._queue) < self._options.max_messages
            and self._waiting_bytes + outgoing.size <= self._options.max_bytes
        )

    def put(self, outgoing: Outgoing, start: Start = start_eagerly) -> None:
        """Write or queue `outgoing`, or apply the overflow policy. Never waits, never raises."""
        if not self._accepting:
            self._drop("closed", 1)
        elif self._write is None:
            self._start(outgoing, start)
        elif self.has_room(outgoing):
            self._append(outgoing)
        else:
            self._overflow(outgoing)

    async def put_when_room(self, outgoing: Outgoing) -> None:
        """
        Wait for room, then `put()`. Waiting callers take turns in the order they came.

        A peer that leaves a caller waiting for `send_timeout` is evicted. May be cancelled: the
        message is then not queued.
        """
        if self._space is None:
            if self.has_room(outgoing):
                self.put(outgoing)
                return
            self._space = _Space()
        space = self._space
        try:
            async with limit_time(self._clock, self._options.send_timeout), space.turn:
                while self._accepting and not self.has_room(outgoing):
                    space.freed.clear()
                    await space.freed.wait()
                self.put(outgoing)
        except TimeoutError:
            self._link.evict("send_timeout", None)

    def stop_accepting(self) -> None:
        """Take no more messages; those waiting still go out."""
        self._accepting = False
        self.pending = None
        self._wake()

    def discard(self) -> None:
        """Take no more messages and drop, counted, those that wait."""
        waiting = self.messages
        Outbox.stop_accepting(self)
        self._queue = ()
        self._waiting_bytes = 0
        write = self._end_write()
        if waiting:
            self._counters.queued -= waiting
            self._drop("closed", waiting)
        if write is not None:
            write.cancel()

    def abandon(self) -> None:
        """Do as `discard()`, and touch nothing of an event loop that was closed."""
        self._write = self._deadline = self._space = None
        self.discard()

    async def drained(self) -> None:
        """Wait until nothing waits any longer. May be cancelled."""
        while self._write is not None:
            await asyncio.wait({self._write})

    @abstractmethod
    def _start(self, outgoing: Outgoing, start: Start) -> None:
        """Write, or collect, a message that is not counted yet; nothing waits."""

    @abstractmethod
    def _go_on(self) -> None:
        """Write what is queued, until the peer blocks."""

    def _block(self, write: asyncio.Future[None], messages: int) -> None:
        """Wait for a write of so many messages, which are counted as queued."""
        self._write = write
        self._writing = messages
        self._set_deadline()
        write.add_done_callback(self._finish)

    def _set_deadline(self) -> None:
        self._deadline = self._clock.call_later(
            self._options.send_timeout, self._link.evict, "send_timeout", None
        )

    def _finish(self, write: asyncio.Future[None]) -> None:
        """Go on after a write that blocked."""
        if write is not self._write:
            # Discarded meanwhile. What it raised is nobody's concern, but must be looked at.
            if not write.cancelled():
                write.exception()
            return
        error = asyncio.CancelledError() if write.cancelled() else write.exception()
        if error is not None:
            self._link.evict("write_failed", error)
            return
        self._counters.queued -= self._writing
        self._counters.sent += self._writing
        self._end_write()
        self._go_on()
        if not self._queue:
            self._queue = ()
        self._wake()

    def _take_next(self, queue: deque[Outgoing]) -> Outgoing:
        outgoing = queue.popleft()
        self._waiting_bytes -= outgoing.size
        return outgoing

    def _end_write(self) -> asyncio.Future[None] | None:
        write, self._write = self._write, None
        self._writing = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return write

    def _append(self, outgoing: Outgoing) -> None:
        self._counters.queued += 1
        if isinstance(self._queue, tuple):
            self._queue = deque()
        self._queue.append(outgoing)
        self._waiting_bytes += outgoing.size

    def _overflow(self, outgoing: Outgoing) -> None:
        if self._options.overflow == "drop_oldest":
            dropped = 0
            while not self.has_room(outgoing):
                assert self._queue  # noqa: S101  (an empty queue has room)
                self._take_next(self._queue)
                dropped += 1
            self._counters.queued -= dropped
            self._append(outgoing)
            self._drop("overflow", dropped)
            return
        self._drop("overflow", 1)
        if self._options.overflow == "disconnect":
            self._link.evict("overflow", None)

    def _drop(self, reason: DropReason, count: int) -> None:
        self._counters.dropped[reason] += count
        self._link.report_drop(reason, count)

    def _wake(self) -> None:
        if self._space is not None:
            self._space.freed.set()


class EventOutbox(Outbox):
    """Writes one message at a time, in the turn in which it is put."""

    __slots__ = ("_sink",)

    def __init__(self, sink: EventSink, link: OutboxLink, hub: OutboxHub) -> None:
        super().__init__(link, hub)
        self._sink = sink

    def _start(self, outgoing: Outgoing, start: Start) -> None:
        try:
            write = self._sink.write(outgoing, start)
        except (Exception, asyncio.CancelledError) as error:  # the server's, not the caller's
            self._drop("closed", 1)
            self._link.evict("write_failed", error)
            return
        if write is None:
            self._counters.sent += 1
            return
        self._counters.queued += 1
        self._block(write, 1)

    def _go_on(self) -> None:
        while self._queue and self._write is None:
            self._counters.queued -= 1
            self._start(self._take_next(self._queue), start_eagerly)


class _Space:
    """What senders wait for; made when the first one has to."""

    __slots__ = ("freed", "turn")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.freed = asyncio.Event()
