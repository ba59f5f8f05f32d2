"""From the backend to the outboxes of this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wshub.messages import Dismissal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub._registry import Registry
    from wshub.connection import Connection
    from wshub.messages import Envelope, Publication

__all__ = ("Relay",)

TURN = 256
"""Recipients written to before the event loop gets a turn."""


class Relay:
    """Delivers one envelope after the other, so that all recipients see the same order."""

    __slots__ = ("_order", "_registry")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._order = asyncio.Lock()

    async def deliver(self, envelope: Envelope) -> None:
        """
        Put a publication into the outboxes of its audience, or close a user's connections.

        Waits for the deliveries before it, never for a recipient. Cancelling while it waits
        delivers to nobody, cancelling later does not leave anyone out.
        """
        async with self._order:
            if isinstance(envelope, Dismissal):
                for connection in self._registry.find("user", envelope.user):
                    connection._link.start_closing(envelope.code, envelope.reason)
            else:
                recipients = self._registry.find(envelope.audience, envelope.name)
                await _fan_out(envelope, recipients)


async def _fan_out(publication: Publication, recipients: Sequence[Connection]) -> None:
    cancelled: asyncio.CancelledError | None = None
    for start in range(0, len(recipients), TURN):
        if start and cancelled is None:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                # Half a broadcast is worse than a late cancellation.
                cancelled = error
        _put(publication, recipients[start : start + TURN])
    if cancelled is not None:
        raise cancelled


def _put(publication: Publication, recipients: Sequence[Connection]) -> None:
    exclude, message = publication.exclude, publication.message
    for connection in recipients:
        if connection.id not in exclude:
            connection.outbox.put(message)
