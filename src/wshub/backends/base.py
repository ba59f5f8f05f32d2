"""What a manager and a backend ask of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, runtime_checkable

from wshub.events import Event, SkipReason  # noqa: TC001  (an alias may be asked for its types)
from wshub.messages import Audience, Envelope

__all__ = ("Backend", "Deliver", "Health", "OneTimeKeys", "Receiver")

Deliver = Callable[[Envelope], Awaitable[None]]
"""Hands one envelope to the connections of this process. Never raises for a recipient."""


class Receiver(NamedTuple):
    """
    What a manager takes from its backend.

    Attributes:
        deliver: Hands one envelope to the connections of this process. Await one before the
            next: that is the order that clients see.
        report: Tells hooks of an event. Never raises.
        skip: Counts something that arrived and cannot be read. Never raises.
    """

    deliver: Deliver
    report: Callable[[Event], None]
    skip: Callable[[SkipReason], None]


class Health(NamedTuple):
    """
    Whether messages travel between workers now.

    Attributes:
        ready: Whether they do, as far as a probe a few seconds ago can tell.
        backend: Name of the backend.
        problem: Why they do not; None while they do.
        seconds: For how long it has been like this.
        outages: How often the backend was lost since it was started.
    """

    ready: bool
    backend: str
    problem: str | None
    seconds: float
    outages: int


@runtime_checkable
class Backend(Protocol):
    """
    Carries envelopes to every worker, its own included, in one order for all of them.

    A worker delivers only what comes back through `deliver`: one path, one order. All methods
    belong to one event loop, from `start()` to `stop()`; the next `start()` may be in another.
    """

    def attach(self, receiver: Receiver) -> None:
        """Take what the manager offers. Called once, before anything else."""
        ...

    async def start(self) -> None:
        """
        Get ready to publish and to deliver. Called by `ConnectionManager.lifespan`.

        Returns when it is ready, or when its server turned out to be away: then it goes on
        trying, and `health()` tells. Cancelling leaves nothing behind.

        Raises:
            BackendUnavailable: The server is there and refuses this configuration.
        """
        ...

    async def stop(self) -> None:
        """Let go of everything, promptly also while the server is away. Idempotent."""
        ...

    async def publish(self, envelope: Envelope) -> None:
        """
        Take `envelope` for delivery in all workers; return when it is taken.

        Raises:
            BackendUnavailable: It cannot be taken now. Nothing was published, unless the error
                is `uncertain`.
            PayloadTooLarge: It is over the backend's limit. Nothing was published.
        """
        ...

    def subscribe(self, audience: Audience, name: str) -> None:
        """
        Begin to deliver what is published to an audience; `subscribed()` waits for it.

        Never waits and never raises: away or not started, the backend subscribes later. The
        manager calls it for the first connection of a room or user, and once for everyone.
        """
        ...

    def unsubscribe(self, audience: Audience, name: str) -> None:
        """Deliver no longer what is published to an audience. Never waits, never raises."""
        ...

    async def subscribed(self, audience: Audience, name: str) -> None:
        """
        Wait until a subscription is in effect: what is published from now on is delivered.

        Returns at once while the backend is away or not started, and if nobody has subscribed
        or does so no longer. Bounded in time. May be cancelled.
        """
        ...

    def health(self) -> Health:
        """Say whether messages travel now."""
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
