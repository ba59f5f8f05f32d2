"""The plumbing of one accepted WebSocket: reader, inbox, outbox, sink, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio

from wshub._facade import take_over
from wshub._farewell import Closure, free_later, say_farewell
from wshub._framed_outbox import FramedOutbox
from wshub._handler import Handler
from wshub._inbox import Inbox
from wshub._outbox import EventOutbox
from wshub._reader import PushedReader, TaskReader
from wshub._sink import AsgiSink, find_frame_sink
from wshub._spawned import SpawnedTasks
from wshub._watch import Watch
from wshub.events import ConnectionEnded, MessagesDropped
from wshub.exceptions import (
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    check_close_code,
    cut_reason,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Message as AsgiEvent

    from wshub._clock import Clock
    from wshub._counters import Counters
    from wshub._flush import Flush
    from wshub._outbox import Outbox, OutboxOptions
    from wshub._reader import Reader
    from wshub._sink import Sink
    from wshub._tasks import TaskOwner
    from wshub._tenure import Tenure
    from wshub._watch import WatchOptions
    from wshub.connection import Connection
    from wshub.events import DropReason, Event, EvictionReason, LimitAction, LimitName
    from wshub.exceptions import ClosedBy
    from wshub.messages import Outgoing

__all__ = ("Link", "LinkHub")

T = TypeVar("T")

logger = logging.getLogger("wshub")

EVICTION_GRACE = 1.0
"""Seconds that a peer which is cut off has to take the close frame."""

SENDS_PER_TURN = 64
"""Messages sent on one connection after which the event loop gets a turn."""


class LinkHub(Protocol):
    """What a link needs of the manager it belongs to."""

    outbox_options: OutboxOptions
    read_ahead: int
    watch_options: WatchOptions
    counters: Counters
    tasks: TaskOwner
    clock: Clock
    flush: Flush

    def forget(self, connection: Connection) -> None:
        """Take `connection` out of the registry and all rooms. Idempotent."""
        ...

    def handler_grace(self, by: ClosedBy) -> float | None:
        """Return the seconds that a handler has once its connection is over; None: no limit."""
        ...

    @property
    def has_hooks(self) -> bool:
        """Whether anybody wants to be told of events."""
        ...

    def report(self, event: Event) -> None:
        """Tell hooks of `event`."""
        ...

    def report_limit(self, limit: LimitName, action: LimitAction, connection: Connection) -> None:
        """Count, log and tell hooks that the peer of `connection` reached a limit."""
        ...


class Link:
    """Reads from and writes to one peer until either side, or the server, ends it."""

    __slots__ = (
        "_connection",
        "_farewell",
        "_handler",
        "_hub",
        "_inbox",
        "_reader",
        "_sends",
        "_sink",
        "_spawned",
        "closure",
        "outbox",
        "tenure",
    )

    def __init__(self, connection: Connection, hub: LinkHub) -> None:
        websocket = connection.websocket
        options = hub.outbox_options
        self._connection = connection
        self._hub = hub
        self._inbox = Inbox(
            max_messages=hub.read_ahead, max_size=options.max_bytes, counters=hub.counters
        )
        self._sink: Sink
        self._reader: Reader
        self.outbox: Outbox
        frames = find_frame_sink(websocket)
        if frames is None:
            receive = websocket._receive
            self._sink = sink = AsgiSink(receive, websocket._send)
            self.outbox = EventOutbox(sink, self, hub)
            self._reader = TaskReader(receive, sink, self._inbox, self, hub.tasks)
        else:
            self._sink = frames
            self.outbox = outbox = FramedOutbox(frames, self, hub)
            self._reader = PushedReader(frames, outbox, self._inbox, self, options.compress_from)
        self.closure: Closure | None = None
        self.tenure: Tenure | None = None
        self._sends = 0
        self._farewell: asyncio.Task[None] | None = None
        self._handler: Handler | None = None
        self._spawned: SpawnedTasks | None = None
        take_over(websocket, self)

    @property
    def name(self) -> str:
        """The connection's id."""
        return self._connection.id

    @property
    def is_behind(self) -> bool:
        """Whether reading has stopped because the handler does not keep up."""
        return self._inbox.is_held_up

    def start(self) -> None:
        """Start to read and to watch. Called once, when the registry knows the connection."""
        if self._hub.watch_options and self.closure is None:
            self._reader.watch = Watch(self, self._hub.watch_options, self._hub.clock)
        self._reader.start()

    def bind_handler(self) -> Handler:
        """Cancel the current task some time after the end, unless it settles before."""
        self._handler = Handler(self._connection.id)
        if self.closure is not None:
            self._handler.expect_end(self._hub.clock, self._hub.handler_grace(self.closure.by))
        return self._handler

    def check_open(self) -> None:
        """Raise `ConnectionClosed` if it is over."""
        if self.closure is not None:
            raise ConnectionClosed(*self.closure)

    async def send(self, outgoing: Outgoing) -> None:
        """Queue or write `outgoing`, waiting for room. Raises `ConnectionClosed`."""
        if self.closure is not None:
            await asyncio.sleep(0)  # who catches everything and tries again starves nobody
            raise ConnectionClosed(*self.closure)
        await self.outbox.put_when_room(outgoing)
        self._sends += 1
        if self._sends % SENDS_PER_TURN == 0:
            # A write that does not block does not suspend: a handler that only sends would
            # starve everyone else.
            await asyncio.sleep(0)
        self.check_open()

    async def send_and_flush(self, outgoing: Outgoing) -> None:
        """Send, and wait until it is written: the handler may return, and the server close."""
        await self.send(outgoing)
        await self.outbox.drained()
        self.check_open()

    async def receive(self) -> str | bytes:
        """Return the next message. Raises `ConnectionClosed` or `ConcurrentReceive`."""
        if self._inbox.is_being_read:
            raise ConcurrentReceive(self._connection.id)
        message = await self._inbox.get()
        if message is None:
            # Only the end of the link ends its inbox.
            assert self.closure is not None  # noqa: S101
            await asyncio.sleep(0)  # who catches everything and tries again starves nobody
            raise ConnectionClosed(*self.closure)
        return message

    def start_closing(self, code: int, reason: str) -> Closure:
        """Do as `close()` without waiting for it; return how it ended, or had ended before."""
        code, reason = check_close_code(code), cut_reason(reason)
        if self.closure is not None:
            return self.closure
        closure = self._end(code, reason, "hub")
        self.outbox.stop_accepting()
        self._say_farewell(closure, self._hub.outbox_options.send_timeout)
        return closure

    async def close(self, code: int, reason: str) -> None:
        """End it; wait until what is queued and the close frame are sent, or given up."""
        self.start_closing(code, reason)
        await self.said_farewell()

    async def said_farewell(self) -> None:
        """Wait until a close that was started is done, or given up. May be cancelled."""
        if self._farewell is not None:
            await asyncio.wait({self._farewell})

    def abort(self) -> None:
        """End it and drop the transport, where the server offers a way."""
        self.end_now("aborted")
        self.outbox.discard()
        if self._farewell is not None:
            self._farewell.cancel()
        self._sink.abort()

    def release(self) -> None:
        """Stop reading: it is over, the handler has returned, and nobody will receive any more."""
        self._inbox.discard()
        self._reader.stop()

    async def finish(self, code: int, reason: str) -> None:
        """Close, release, and wait until the reader and what was spawned have ended."""
        with anyio.CancelScope(shield=True):
            try:
                await self.close(code, reason)
            finally:
                self.release()
            tasks = set(self._spawned.running if self._spawned else ())
            if self._reader.task is not None:
                tasks.add(self._reader.task)
            _, running = await asyncio.wait(tasks, timeout=EVICTION_GRACE) if tasks else ((), ())
            for task in running:
                logger.warning(
                    "%s of %s ignores its cancellation", task.get_name(), self._connection.id
                )

    def spawn(self, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run `coroutine` until it or the link ends. Raises `ConnectionClosed`."""
        if self.closure is not None:
            coroutine.close()
            raise ConnectionClosed(*self.closure)
        if self._spawned is None:
            self._spawned = SpawnedTasks(self, self._connection.id)
        task = self._spawned.start(coroutine)
        if self.closure is not None:  # pragma: no cover (on eager loops it may have ended the link)
            task.cancel()
        return task

    def report_drop(self, reason: DropReason, count: int) -> None:
        """Tell hooks that messages were dropped."""
        if self._hub.has_hooks:
            self._hub.report(MessagesDropped(self._connection, reason, count))

    def report_limit(self, limit: LimitName, action: LimitAction) -> None:
        """Count, log and tell hooks that the peer reached a limit."""
        self._hub.report_limit(limit, action, self._connection)

    def evict(self, cause: EvictionReason, error: BaseException | None) -> None:
        """Give up a peer that cannot be served any longer."""
        if self.closure is not None:
            self.outbox.discard()  # it is closing already; the farewell settles the rest
            return
        self._hub.counters.evicted[cause] += 1
        if cause == "write_failed":
            logger.info("connection %s is dead", self._connection.id, exc_info=error)
            self._end(CloseCode.ABNORMAL_CLOSURE, "", "peer", cause)
            self.outbox.discard()
            free_later(self._hub.clock, self._sink, EVICTION_GRACE)
        else:
            logger.warning("cutting off connection %s: %s", self._connection.id, cause)
            closure = self._end(CloseCode.TRY_AGAIN_LATER, "reading too slowly", "hub", cause)
            self.outbox.discard()
            self._say_farewell(closure, EVICTION_GRACE)

    def _end(
        self, code: int, reason: str, by: ClosedBy, evicted: EvictionReason | None = None
    ) -> Closure:
        """Make it over at once; what the outbox still holds is the caller's to settle."""
        closure = self.closure = Closure(int(code), reason, by)
        if by == "hub":
            self._inbox.discard()
        else:
            self._inbox.end()
        if self._reader.watch is not None:
            self._reader.watch.stop()
            self._reader.watch = None
        if self.tenure is not None:
            self.tenure.stop()
            self.tenure = None
        if self._spawned is not None:
            self._spawned.cancel()
        if self._handler is not None:
            self._handler.expect_end(self._hub.clock, self._hub.handler_grace(by))
        self._hub.forget(self._connection)
        if self._hub.has_hooks:
            closed = ConnectionClosed(*closure)
            self._hub.report(ConnectionEnded(self._connection, closed, evicted))
        return closure

    def end_now(self, reason: str) -> None:
        """End it without a word to the peer, unless it is over."""
        if self.closure is None:
            self._end(CloseCode.ABNORMAL_CLOSURE, reason, "hub")
            self.outbox.discard()

    def _say_farewell(self, closure: Closure, limit: float) -> None:
        name = self._connection.id
        self._farewell = say_farewell(
            self._hub, self.outbox, self._sink, name, closure, limit, self._reader.stop
        )

    def see_disconnect(self, event: AsgiEvent) -> None:
        """Take note of a `websocket.disconnect`."""
        if self.closure is None:
            code = event.get("code") or CloseCode.NO_STATUS_RECEIVED
            by: ClosedBy = "server" if code == CloseCode.SERVICE_RESTART else "peer"
            self._end(code, event.get("reason") or "", by)
            self.outbox.discard()
            # A server that stops waits for those who take what is queued, as a close of ours does.
            limit = self._hub.outbox_options.send_timeout if by == "server" else EVICTION_GRACE
            free_later(self._hub.clock, self._sink, limit, EVICTION_GRACE)
