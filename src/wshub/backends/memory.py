"""The backend of a single process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wshub.backends.base import Deliver
    from wshub.messages import Envelope

__all__ = ("MemoryBackend",)


class MemoryBackend:
    """
    Delivers straight on, in the call that publishes. Needs no start and no server.

    It reaches the connections of this process only.
    """

    _deliver: Deliver

    def attach(self, deliver: Deliver) -> None:
        """Take the manager's `deliver`."""
        self._deliver = deliver

    async def start(self) -> None:
        """Nothing to get ready."""

    async def stop(self) -> None:
        """Nothing to let go of."""

    async def publish(self, envelope: Envelope) -> None:
        """Deliver `envelope`."""
        await self._deliver(envelope)
