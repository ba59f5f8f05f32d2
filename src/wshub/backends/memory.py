"""The backend of a single process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wshub._servers import warn_of_workers
from wshub.backends.base import Health

if TYPE_CHECKING:
    from wshub.backends.base import Deliver, Receiver
    from wshub.messages import Audience, Envelope

__all__ = ("MemoryBackend",)


class MemoryBackend:
    """
    Delivers straight on, in the call that publishes. Needs no start and no server.

    It reaches the connections of this process only. Where a server was told to start several
    workers, a warning says so, once.
    """

    _deliver: Deliver

    def __init__(self) -> None:
        self._since = time.monotonic()

    def attach(self, receiver: Receiver) -> None:
        """Take what the manager offers."""
        warn_of_workers(
            "MemoryBackend reaches only the connections of this one",
            "a backend that they share, say ConnectionManager(backend="
            "backend_from_url('redis://…'))",
        )
        self._deliver = receiver.deliver

    async def start(self) -> None:
        """Nothing to get ready."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    async def publish(self, envelope: Envelope) -> None:
        """Deliver `envelope`."""
        await self._deliver(envelope)

    def subscribe(self, audience: Audience, name: str) -> None:
        """Everything is delivered here anyway."""

    def unsubscribe(self, audience: Audience, name: str) -> None:
        """Nothing to undo."""

    async def subscribed(self, audience: Audience, name: str) -> None:
        """Nothing to wait for."""

    def health(self) -> Health:
        """Always ready."""
        return Health(True, "MemoryBackend", None, time.monotonic() - self._since, 0)  # noqa: FBT003
