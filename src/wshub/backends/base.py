"""What a manager asks of a backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from wshub.messages import Envelope

__all__ = ("Backend", "Deliver", "OneTimeKeys")

Deliver = Callable[[Envelope], Awaitable[None]]
"""Hands one envelope to the connections of this process. Never raises for a recipient."""


class Backend(Protocol):
    """
    Carries envelopes to every worker, its own included, in one order for all of them.

    A worker delivers only what comes back through `deliver`: one path, one order.
    """

    def attach(self, deliver: Deliver) -> None:
        """Take the manager's `deliver`. Called once, before anything else."""
        ...

    async def start(self) -> None:
        """Get ready to publish and to deliver. Called by `ConnectionManager.lifespan`."""
        ...

    async def stop(self) -> None:
        """Let go of everything. Called by `ConnectionManager.lifespan`; idempotent."""
        ...

    async def publish(self, envelope: Envelope) -> None:
        """
        Take `envelope` for delivery in all workers; return when it is taken.

        Raises:
            BackendUnavailable: It cannot be taken now. Nothing was published.
            PayloadTooLarge: It is over the backend's limit. Nothing was published.
        """
        ...


class OneTimeKeys(Protocol):
    """
    Keeps values under keys that are taken once: by one worker, whoever else asks at the same time.

    Keys are hashes of secrets; what they are hashes of is never stored.
    """

    async def put(self, key_hash: str, value: str, ttl: float) -> None:
        """
        Keep `value` under a key that is new, for `ttl` seconds.

        Raises:
            BackendUnavailable: It cannot be kept now.
            ValueError: The key is there already, or `ttl` is not positive.
        """
        ...

    async def take(self, key_hash: str) -> str | None:
        """
        Return what is kept under a key, and keep it no longer; None if there is nothing.

        Raises:
            BackendUnavailable: It cannot be asked now.
        """
        ...
