"""The plumbing of one accepted WebSocket: reader, inbox, outbox, sink, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import anyio

from wshub._inbox import Inbox
from wshub._outbox import Outbox
from wshub._sink import AsgiSink
from wshub.exceptions import (
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    check_close_code,
    cut_reason,
)
from wshub.messages import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import Message as AsgiEvent
    from starlette.websockets import WebSocket

    from wshub._counters import Counters
    from wshub._outbox import OutboxOptions
    from wshub._tasks import TaskOwner
    from wshub.events import EvictionReason
    from wshub.exceptions import ClosedBy

__all__ = ("Link", "LinkOptions")

T = TypeVar("T")

logger = logging.getLogger("wshub")

EVICTION_GRACE = 1.0
"""Seconds that a peer which is cut off has to take the close frame."""

SENDS_PER_TURN = 64
"""Messages sent on one connection after which the event loop gets a turn."""


class LinkOptions(Protocol):
    """What a link needs of the manager it belongs to."""

    outbox_options: OutboxOptions
    read_ahead: int
    counters: Counters
    tasks: TaskOwner


class Closure(NamedTuple):
    """How a link ended: the arguments of `ConnectionClosed`."""

    code: int
    reason: str
    by: ClosedBy


class Link:
    """
    Reads from and writes to one peer until either side, or the server, ends it.

    `on_end` is called once, at the moment it is over for everyone.
    """

    __slots__ = (
        "_farewell",
        "_inbox",
        "_on_end",
        "_options",
        "_reader",
        "_receive",
        "_sends",
        "_sink",
        "_spawned",
        "closure",
        "name",
        "outbox",
    )

    def __init__(
        self,
        websocket: WebSocket,
        name: str,
        options: LinkOptions,
        on_end: Callable[[], None],
    ) -> None:
        self.name = name
        self._options = options
        self._on_end = on_end
        self._receive = websocket._receive
        self._sink = AsgiSink(websocket._receive, websocket._send)
        self._inbox = Inbox(
            max_messages=options.read_ahead,
            max_size=options.outbox_options.max_bytes,
            counters=options.counters,
        )
        self.outbox = Outbox(
            self._sink,
            options.outbox_options,
            counters=options.counters,
            evict=self._evict,
        )
        self.closure: Closure | None = None
        self._sends = 0
        self._farewell: asyncio.Task[None] | None = None
        self._spawned: set[asyncio.Task[Any]] = set()
        # The handler may go on using the WebSocket as the tutorial does. Taking the place of the
        # server's callables keeps that in order with broadcasts, lets the reader run beside
        # `receive_text()`, and lets Starlette close what the hub has closed already.
        websocket._receive = self._receive_for_websocket
        websocket._send = self._send_for_websocket

    def start_reading(self) -> None:
        """Start the reader. Called once, when the registry knows the connection."""
        self._reader = self._options.tasks.start(self._read(), name=f"wshub reader {self.name}")

    def check_open(self) -> None:
        """Raise `ConnectionClosed` if it is over."""
        if self.closure is not None:
            raise ConnectionClosed(*self.closure)

    async def send(self, outgoing: Outgoing) -> None:
        """Queue or write `outgoing`, waiting for room. Raises `ConnectionClosed`."""
        self.check_open()
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
            raise ConcurrentReceive(self.name)
        message = await self._inbox.get()
        if message is None:
            # Only the end of the link ends its inbox.
            assert self.closure is not None  # noqa: S101
            raise ConnectionClosed(*self.closure)
        return message

    def start_closing(self, code: int, reason: str) -> Closure:
        """Do as `close()` without waiting for it; return how it ended, or had ended before."""
        code, reason = check_close_code(code), cut_reason(reason)
        if self.closure is not None:
            return self.closure
        closure = self._end(code, reason, "hub")
        self.outbox.stop_accepting()
        self._say_farewell(code, reason, self._options.outbox_options.send_timeout)
        return closure

    async def close(self, code: int, reason: str) -> None:
        """End it; wait until what is queued and the close frame are sent, or given up."""
        self.start_closing(code, reason)
        if self._farewell is not None:
            await asyncio.wait({self._farewell})

    def abort(self) -> None:
        """End it and drop the transport, where the server offers a way."""
        self._end_now("aborted")
        self._sink.abort()

    def lose(self) -> None:
        """End it as the peer's doing, without a word from the peer."""
        self._end(CloseCode.ABNORMAL_CLOSURE, "", "peer")
        self.outbox.discard()

    def release(self) -> None:
        """Stop reading: it is over, the handler has returned, and nobody will receive any more."""
        self._inbox.discard()
        self._reader.cancel()

    async def finish(self, code: int, reason: str) -> None:
        """Close, release, and wait until the reader and what was spawned have ended."""
        with anyio.CancelScope(shield=True):
            try:
                await self.close(code, reason)
            finally:
                self.release()
            tasks = {self._reader, *self._spawned}
            _, running = await asyncio.wait(tasks, timeout=EVICTION_GRACE)
            for task in running:
                logger.warning("%s of %s ignores its cancellation", task.get_name(), self.name)

    def spawn(self, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run `coroutine` until it or the link ends. Raises `ConnectionClosed`."""
        if self.closure is not None:
            coroutine.close()
            raise ConnectionClosed(*self.closure)
        task = asyncio.get_running_loop().create_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._settle)
        if self.closure is not None:  # pragma: no cover (on eager loops it may have ended the link)
            task.cancel()
        return task

    def _end(self, code: int, reason: str, by: ClosedBy) -> Closure:
        """Make it over at once; what the outbox still holds is the caller's to settle."""
        closure = self.closure = Closure(int(code), reason, by)
        if by == "hub":
            self._inbox.discard()
        else:
            self._inbox.end()
        for task in self._spawned:
            task.cancel()
        self._on_end()
        return closure

    def _end_now(self, reason: str) -> None:
        if self.closure is None:
            self._end(CloseCode.ABNORMAL_CLOSURE, reason, "hub")
            self.outbox.discard()

    def _evict(self, cause: EvictionReason, error: BaseException | None) -> None:
        if self.closure is not None:
            self.outbox.discard()  # it is closing already; the farewell settles the rest
            return
        self._options.counters.evicted[cause] += 1
        if cause == "write_failed":
            logger.info("connection %s is dead", self.name, exc_info=error)
            self.lose()
        else:
            logger.warning("cutting off connection %s: %s", self.name, cause)
            code, reason = CloseCode.TRY_AGAIN_LATER, "reading too slowly"
            self._end(code, reason, "hub")
            self.outbox.discard()
            self._say_farewell(code, reason, EVICTION_GRACE)

    def _say_farewell(self, code: int, reason: str, limit: float) -> None:
        """Write the close frame now if nothing waits before it; the handler may be at its end."""
        rest = None
        if not self.outbox.messages:
            try:
                rest = self._sink.close(code, reason)
            except (Exception, asyncio.CancelledError) as error:  # the server's, not the caller's
                logger.debug("%s left before its close frame", self.name, exc_info=error)
                return
            if rest is None:
                self._free_later(limit)
                return
        self._farewell = self._options.tasks.start(
            self._write_farewell(code, reason, limit, rest), name=f"wshub close {self.name}"
        )

    async def _write_farewell(
        self, code: int, reason: str, limit: float, rest: asyncio.Future[None] | None
    ) -> None:
        try:
            async with asyncio.timeout(limit):
                if rest is None:
                    await self.outbox.drained()
                    rest = self._sink.close(code, reason)
                if rest is not None:
                    await rest
            self._free_later(limit)
        except (TimeoutError, asyncio.CancelledError):
            self.outbox.discard()
            self._sink.abort()
        except Exception as error:  # servers raise what they like for a dead peer
            logger.debug("%s left before its close frame", self.name, exc_info=error)

    def _free_later(self, limit: float) -> None:
        """Drop the transport of a peer that does not read what it was sent last."""
        if self._sink.unsent_bytes:
            asyncio.get_running_loop().call_later(limit, self._sink.abort)

    async def _read(self) -> None:
        while True:
            try:
                event = await self._receive()
            except asyncio.CancelledError:
                self._end_now("reading was cancelled")
                raise
            except Exception as error:  # servers raise what they like for a dead peer
                logger.debug("%s failed to receive", self.name, exc_info=error)
                event = {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE}
            if event["type"] == "websocket.disconnect":
                self._see_disconnect(event)
                return
            await self._inbox.put(_payload(event))

    def _see_disconnect(self, event: AsgiEvent) -> None:
        if self.closure is None:
            code = event.get("code") or CloseCode.NO_STATUS_RECEIVED
            by: ClosedBy = "server" if code == CloseCode.SERVICE_RESTART else "peer"
            self._end(code, event.get("reason") or "", by)
            self.outbox.discard()
            self._free_later(EVICTION_GRACE)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or (isinstance(error, ConnectionClosed) and self.closure is not None):
            return
        logger.error("%s of connection %s failed", task.get_name(), self.name, exc_info=error)
        self.start_closing(CloseCode.INTERNAL_ERROR, "internal error")

    async def _receive_for_websocket(self) -> AsgiEvent:
        try:
            message = await self.receive()
        except ConnectionClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        kind = "text" if isinstance(message, str) else "bytes"
        return _ReceiveEvent(self, {"type": "websocket.receive", kind: message})

    async def _send_for_websocket(self, event: AsgiEvent) -> None:
        if event["type"] == "websocket.close":
            await self.close(event.get("code", 1000), event.get("reason") or "")
        else:
            await self.send_and_flush(Outgoing(_payload(event)))


class _ReceiveEvent(dict[str, Any]):
    """A `websocket.receive` event that ends the link if it is not of the type that is asked for."""

    def __init__(self, link: Link, event: AsgiEvent) -> None:
        super().__init__(event)
        self._link = link

    def __missing__(self, key: str) -> object:
        # `WebSocket.receive_text()` looks up "text" and would let a KeyError end the handler.
        reason = f"this message has no {key}"
        raise ConnectionClosed(*self._link.start_closing(CloseCode.UNSUPPORTED_DATA, reason))


def _payload(event: AsgiEvent) -> str | bytes:
    text: str | None = event.get("text")
    data: str | bytes = event["bytes"] if text is None else text
    return data
