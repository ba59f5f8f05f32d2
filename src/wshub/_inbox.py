"""The bounded queue behind one peer: what was read ahead of the handler."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wshub._counters import Counters

__all__ = ("Inbox",)


class Inbox:
    """
    Holds messages between whatever reads and the one task that receives.

    Bounded by messages and by their length in characters or bytes; reading stops once full.
    """

    __slots__ = (
        "_arrival",
        "_counters",
        "_ended",
        "_max_messages",
        "_max_size",
        "_messages",
        "_on_room",
        "_waiting_size",
    )

    def __init__(self, *, max_messages: int, max_size: int, counters: Counters) -> None:
        self._max_messages = max_messages
        self._max_size = max_size
        self._counters = counters
        # Many peers never send: an empty deque would be the largest part of their memory.
        self._messages: deque[str | bytes] | tuple[()] = ()
        self._waiting_size = 0
        self._ended = False
        self._arrival: asyncio.Future[None] | None = None
        self._on_room: Callable[[], None] | None = None

    @property
    def is_being_read(self) -> bool:
        """Whether a task waits in `get()`."""
        return self._arrival is not None

    @property
    def is_full(self) -> bool:
        """Whether nothing more is read until a message is taken."""
        return not self._ended and (
            len(self._messages) >= self._max_messages or self._waiting_size >= self._max_size
        )

    @property
    def is_held_up(self) -> bool:
        """Whether reading waits for room."""
        return self._on_room is not None

    def put(self, message: str | bytes) -> None:
        """Append `message`, also over the bound: reading then waits for room."""
        self._counters.received += 1
        if self._ended:
            self._counters.unread += 1
            return
        if isinstance(self._messages, tuple):
            self._messages = deque()
        self._messages.append(message)
        self._waiting_size += len(message)
        _resolve(self._arrival)

    def call_on_room(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` whenever a message is taken, and at the end; None: no more."""
        self._on_room = callback

    async def wait_for_room(self, timeout: float) -> None:
        """Return once it may have room, or after `timeout` seconds. One caller at a time."""
        room = asyncio.get_running_loop().create_future()
        self.call_on_room(partial(_resolve, room))
        try:
            await asyncio.wait({room}, timeout=timeout)
        finally:
            self.call_on_room(None)

    async def get(self) -> str | bytes | None:
        """
        Take the next message; None once the inbox has ended and is empty.

        One caller at a time. May be cancelled: no message is lost.
        """
        while not self._messages:
            if self._ended:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        message = self._messages.popleft()
        self._waiting_size -= len(message)
        if self._on_room is not None:
            self._on_room()
        return message

    def end(self) -> None:
        """Let what was read still be taken; then `get()` returns None."""
        self._ended = True
        _resolve(self._arrival)
        if self._on_room is not None:
            self._on_room()

    def discard(self) -> None:
        """End at once; what was read and not taken is counted as unread."""
        self._counters.unread += len(self._messages)
        self._messages = ()
        self._waiting_size = 0
        self.end()


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
