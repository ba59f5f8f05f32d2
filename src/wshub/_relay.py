"""From the backend to the outboxes of this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wshub._eager import Starting
from wshub.messages import Dismissal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub._counters import Counters
    from wshub._dismissals import Dismissals
    from wshub._flush import Flush
    from wshub._outbox import Outbox
    from wshub._registry import Registry
    from wshub.messages import Envelope, Outgoing

__all__ = ("Relay",)

TURN = 256
"""Recipients written to before the event loop gets a turn."""

TURN_BROADCASTS = 16
TURN_BYTES = 64 * 1024
"""Broadcasts, and bytes for one recipient, after which sockets get a turn to take them."""

PAUSE = 0.001
"""Seconds of such a turn while messages wait for anybody."""


class Relay:
    """Delivers one envelope after the other, so that all recipients see the same order."""

    __slots__ = (
        "_broadcasts",
        "_bytes",
        "_counters",
        "_dismissals",
        "_flush",
        "_flushes",
        "_order",
        "_registry",
    )

    def __init__(
        self, registry: Registry, counters: Counters, flush: Flush, dismissals: Dismissals
    ) -> None:
        self._registry = registry
        self._dismissals = dismissals
        self._counters = counters
        self._flush = flush
        self._order = asyncio.Lock()
        self._broadcasts = 0
        self._bytes = 0
        self._flushes = 0

    async def deliver(self, envelope: Envelope) -> None:
        """
        Put a publication into the outboxes of its audience, or close a user's connections.

        Waits for the deliveries before it, never for a recipient. Cancelling while it waits
        delivers to nobody, cancelling later does not leave anyone out.
        """
        async with self._order:
            if isinstance(envelope, Dismissal):
                self._dismissals.note(envelope)
                for connection in self._registry.find(envelope.audience, envelope.name):
                    connection._link.start_closing(envelope.code, envelope.reason)
                return
            outboxes = self._registry.find_outboxes(
                envelope.audience, envelope.name, envelope.exclude
            )
            await self._fan_out(envelope.message, outboxes)
        await self._give_a_turn(envelope.message.size)

    async def _give_a_turn(self, size: int) -> None:
        # Nothing above waits, and without a turn of the event loop no socket would take more
        # than its buffer holds: a burst would overflow the outboxes of peers that read well.
        if self._flushes != self._flush.runs:
            self._flushes = self._flush.runs  # there was a turn
            self._broadcasts = self._bytes = 0
        self._broadcasts += 1
        self._bytes += size
        if self._broadcasts >= TURN_BROADCASTS or self._bytes >= TURN_BYTES:
            self._broadcasts = self._bytes = 0
            # Under servers that write in threads of their own a turn alone is too little.
            await asyncio.sleep(PAUSE if self._counters.queued else 0)

    async def _fan_out(self, message: Outgoing, outboxes: Sequence[Outbox]) -> None:
        # Those that only take note do so in one go, however many: a turn would flush what the
        # broadcasts of this turn have collected so far.
        others = self._flush.collect(message, outboxes)
        cancelled: asyncio.CancelledError | None = None
        for start in range(0, len(others), TURN):
            if start and cancelled is None:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as error:
                    # Half a broadcast is worse than a late cancellation.
                    cancelled = error
            _put(message, others[start : start + TURN])
        if cancelled is not None:
            raise cancelled


def _put(message: Outgoing, outboxes: Sequence[Outbox]) -> None:
    with Starting() as start:
        for outbox in outboxes:
            outbox.put(message, start)
