"""What takes the messages of one peer and puts them into its inbox."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from wshub._facade import payload_of
from wshub.exceptions import CloseCode

if TYPE_CHECKING:
    from starlette.types import Message as AsgiEvent
    from starlette.types import Receive

    from wshub._inbox import Inbox
    from wshub._sink import FrameSink, Held, Sink
    from wshub._tasks import TaskOwner
    from wshub._watch import Watch

__all__ = ("PushedReader", "Reader", "TaskReader")

logger = logging.getLogger("wshub")

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the server closes a peer that is not read any further."""


class _Link(Protocol):
    """What is read for."""

    @property
    def name(self) -> str:
        """The connection's id."""
        ...

    def see_disconnect(self, event: AsgiEvent) -> None:
        """Take note of a `websocket.disconnect`."""
        ...

    def end_now(self, reason: str) -> None:
        """End it without a word to the peer, unless it is over."""
        ...


class Reader(ABC):
    """
    Reads ahead of the handler until the inbox is full, and until the end.

    Attributes:
        watch: What keeps an eye on the messages, if anything does.
        task: What reads, if that takes a task.
    """

    __slots__ = ("_inbox", "_link", "task", "watch")

    def __init__(self, inbox: Inbox, link: _Link) -> None:
        self._inbox = inbox
        self._link = link
        self.watch: Watch | None = None
        self.task: asyncio.Task[None] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start to read. Called once."""

    def stop(self) -> None:
        """Stop, also where the end is not seen by itself."""
        if self.task is not None:
            self.task.cancel()

    def _put(self, message: str | bytes) -> None:
        if self.watch is None or self.watch.notice(message):
            self._inbox.put(message)

    def _hear(self) -> None:
        if self.watch is not None:
            self.watch.hear()


class TaskReader(Reader):
    """Reads from servers that wait to be asked."""

    __slots__ = ("_receive", "_sink", "_tasks")

    def __init__(
        self, receive: Receive, sink: Sink, inbox: Inbox, link: _Link, tasks: TaskOwner
    ) -> None:
        super().__init__(inbox, link)
        self._receive = receive
        self._sink = sink
        self._tasks = tasks

    def start(self) -> None:
        """Start to read."""
        self.task = self._tasks.start(self._read(), name=f"wshub reader {self._link.name}")

    async def _read(self) -> None:
        while True:
            try:
                event = await self._receive()
            except asyncio.CancelledError:
                self._link.end_now("reading was cancelled")
                raise
            except Exception as error:  # servers raise what they like for a dead peer
                logger.debug("%s failed to receive", self._link.name, exc_info=error)
                event = {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE}
            if event["type"] == "websocket.disconnect":
                self._link.see_disconnect(event)
                return
            self._put(payload_of(event))
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Read no further while the inbox is full, unless the end is all that is left to read."""
        waited = False
        while self._inbox.is_full and not self._sink.is_closing:
            await self._inbox.wait_for_room(LOOK_INTERVAL)
            waited = True
        if waited:
            self._hear()


class PushedReader(Reader):
    """Takes what a frame sink hands over, without a task."""

    __slots__ = ("_compress_from", "_held", "_sink")

    def __init__(
        self, sink: FrameSink, held: Held, inbox: Inbox, link: _Link, compress_from: int
    ) -> None:
        super().__init__(inbox, link)
        self._sink = sink
        self._held = held
        self._compress_from = compress_from

    def start(self) -> None:
        """Start to read."""
        self._sink.attach(self, self._held, self._compress_from)

    def take(self, message: str | bytes) -> bool:
        """Take a message; False: take no more until it calls `FrameSink.resume()`."""
        self._put(message)
        if self._inbox.is_full:
            self._inbox.call_on_room(self._resume)
            return False
        return True

    def see_disconnect(self, event: AsgiEvent) -> None:
        """Take note of a `websocket.disconnect`."""
        self._link.see_disconnect(event)

    def _resume(self) -> None:
        if not self._inbox.is_full:
            self._inbox.call_on_room(None)
            self._hear()
            self._sink.resume()
