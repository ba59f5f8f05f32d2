"""A backend at work, without a manager."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wshub.backends.base import Receiver
from wshub.messages import Publication, encode
from wshub.testing.deadline import DEADLINE, deadline, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wshub.backends.base import Backend
    from wshub.events import Event, SkipReason
    from wshub.messages import Audience, Envelope

__all__ = ("Worker",)


class Worker:
    """
    A backend with a receiver that takes notes, in place of a manager.

    Attributes:
        backend: The backend.
        delivered: Envelopes for the audiences that are subscribed to, in order.
        events: What it reported, in order.
        skipped: What it could not read, in order.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend: Backend = backend
        self.delivered: list[Envelope] = []
        self.events: list[Event] = []
        self.skipped: list[SkipReason] = []
        self._audiences: set[tuple[str, str]] = set()
        backend.attach(Receiver(self._deliver, self.events.append, self.skipped.append))
        self.want("everyone")

    @property
    def texts(self) -> list[str | bytes]:
        """What the publications among the delivered envelopes say."""
        return [
            envelope.message.data
            for envelope in self.delivered
            if isinstance(envelope, Publication)
        ]

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Worker, None]:
        """Start the backend, and stop it at the end of the block."""
        await self.backend.start()
        try:
            yield self
        finally:
            await self.backend.stop()

    def want(self, audience: Audience, name: str = "") -> None:
        """Subscribe, without waiting for it."""
        self._audiences.add((audience, name))
        self.backend.subscribe(audience, name)

    async def subscribe(self, audience: Audience, name: str) -> None:
        """Subscribe, and wait until that is in effect."""
        self.want(audience, name)
        async with deadline(DEADLINE, f"the subscription to {audience} {name!r}"):
            await self.backend.subscribed(audience, name)

    def unsubscribe(self, audience: Audience, name: str) -> None:
        """End a subscription."""
        self._audiences.discard((audience, name))
        self.backend.unsubscribe(audience, name)

    async def publish(
        self, message: object, audience: Audience = "everyone", name: str = ""
    ) -> None:
        """Publish to an audience."""
        async with deadline(DEADLINE, "the backend to take a message"):
            await self.backend.publish(Publication(audience, name, encode(message)))

    async def reached_by(self, *texts: str | bytes, in_order: bool = True) -> None:
        """Wait until exactly these texts were delivered, and forget them."""
        await self.is_delivered(len(texts))
        if in_order:
            assert self.texts == list(texts)
        else:
            assert sorted(self.texts, key=repr) == sorted(texts, key=repr)
        self.delivered.clear()

    async def is_delivered(self, number: int) -> None:
        """Wait until so many envelopes were delivered."""
        await until(lambda: len(self.delivered) >= number, awaited=f"{number} envelopes")

    async def hears(self, text: str | bytes) -> None:
        """Wait until a certain publication was delivered."""
        await until(lambda: text in self.texts, awaited=f"{text!r}")

    async def _deliver(self, envelope: Envelope) -> None:
        await asyncio.sleep(0)
        if (envelope.audience, envelope.name) in self._audiences:  # as a registry does
            self.delivered.append(envelope)
