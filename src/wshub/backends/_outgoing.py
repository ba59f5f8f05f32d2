"""Publications on their way to a broker: those that wait, and those that it is taking."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ("Outgoing", "Outgoings", "expire", "settle")

BATCH_MESSAGES = 128
BATCH_BYTES = 1024 * 1024
"""Messages, and about the bytes, that a broker is given in one call."""


class Outgoing:
    """
    One publication.

    Attributes:
        channel: Where it goes.
        payload: What it carries.
        taken: Done when the broker has taken it, or has failed to.
        sent: Whether it left this queue: from then on it may arrive, whatever is said of it.
    """

    __slots__ = ("channel", "payload", "sent", "taken")

    def __init__(
        self, channel: str, payload: bytes, taken: asyncio.Future[None], *, sent: bool = False
    ) -> None:
        self.channel = channel
        self.payload = payload
        self.taken = taken
        self.sent = sent


class Outgoings:
    """
    A queue that gives what waits in batches: the more there is, the larger they are.

    Attributes:
        is_served: Whether somebody waits for what is put in, and nothing is on its way before.
    """

    __slots__ = ("_left", "_stirred", "_waiting", "is_served")

    def __init__(self) -> None:
        self.is_served = False
        self._waiting: OrderedDict[Outgoing, None] = OrderedDict()
        self._stirred: asyncio.Event
        self._left: asyncio.Event

    def begin(self) -> None:
        """Begin to be used in the running event loop."""
        self._stirred, self._left = asyncio.Event(), asyncio.Event()

    def put(self, channel: str, payload: bytes) -> Outgoing:
        """Queue a payload; whoever waits for it holds the bound of this queue."""
        outgoing = Outgoing(channel, payload, asyncio.get_running_loop().create_future())
        self._waiting[outgoing] = None
        self._stirred.set()
        self.is_served = False
        return outgoing

    def put_first(self, channel: str, payload: bytes) -> Outgoing:
        """Queue a payload before all others."""
        outgoing = self.put(channel, payload)
        self._waiting.move_to_end(outgoing, last=False)
        return outgoing

    def withdraw(self, outgoing: Outgoing) -> None:
        """Send `outgoing` no more, if it has not been sent yet. Idempotent."""
        self._waiting.pop(outgoing, None)

    async def take(self) -> list[Outgoing]:
        """Wait until there is something to send; return what goes out in one call."""
        while not self._waiting:
            self._stirred.clear()
            self.is_served = True
            try:
                await self._stirred.wait()
            finally:
                self.is_served = False
        batch: list[Outgoing] = []
        size = 0
        for outgoing in self._waiting:
            if len(batch) == BATCH_MESSAGES or size >= BATCH_BYTES:
                break
            batch.append(outgoing)
            size += len(outgoing.payload)
        for outgoing in batch:
            outgoing.sent = True
            del self._waiting[outgoing]
        self._left.set()
        return batch

    async def all_sent(self, outgoings: Iterable[Outgoing]) -> None:
        """Wait until all of these were taken."""
        while not all(outgoing.sent for outgoing in outgoings):
            self._left.clear()
            await self._left.wait()

    def put_back(self, batch: Sequence[Outgoing]) -> None:
        """Queue again what was taken, and has not left."""
        for outgoing in reversed(batch):
            outgoing.sent = False
            self._waiting[outgoing] = None
            self._waiting.move_to_end(outgoing, last=False)

    def end(self, error: Callable[[], Exception]) -> None:
        """Give up everything that waits."""
        waiting, self._waiting = self._waiting, OrderedDict()
        settle(waiting, error)


def settle(batch: Iterable[Outgoing], error: Callable[[], Exception] | None = None) -> None:
    """Tell those who wait for `batch` that it was taken, or each of them its `error()`."""
    for outgoing in batch:
        if outgoing.taken.done():
            continue  # nobody waits any longer
        if error is None:
            outgoing.taken.set_result(None)
        else:
            outgoing.taken.set_exception(error())


def expire(taken: asyncio.Future[None]) -> None:
    """Give a publication up, as it has taken too long, unless it is done."""
    if not taken.done():
        taken.set_exception(TimeoutError())
