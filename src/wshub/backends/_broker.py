"""What a supervised backend asks of the server between the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from wshub.exceptions import HubError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

__all__ = ("Broker", "BrokerRefused", "NothingSent", "PromptBroker")


class BrokerRefused(HubError):
    """
    Raised by `Broker.connect()` if it is pointless to try again with the same configuration.

    Attributes:
        problem: What the server objects to, and how to mend it; without any password.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class NothingSent(ConnectionError):
    """Raised by `Broker.publish()` if it failed before anything left: all may be sent again."""


class Broker(Protocol):
    """
    Connections to one server, or cluster, that passes bytes on: nothing but a driver in a mould.

    Any method may raise any `Exception`, which means that the connections are lost; then, and at
    the end, `close()` is called, and `connect()` perhaps after that. Between these two there are
    three lanes side by side, each with one call at a time: `publish()`; `subscribe()` and
    `unsubscribe()`; `receive()`. All calls but `receive()` are cancelled if they take longer than
    a few seconds; cancelled calls are always followed by `close()`.

    Channels are text without control characters, at most 400 bytes of UTF-8; a server that knows
    only shorter or plainer ones gets them in another form. Two channels never become one.
    """

    async def connect(self) -> None:
        """
        Open connections for publishing and for receiving, in the running event loop.

        Raises:
            BrokerRefused: The server is there and objects to a password, a name, a version.
        """
        ...

    def spread(self, channel: str) -> Sequence[str]:
        """
        Return channels for the probes that a worker sends to itself, beginning with `channel`.

        One for each server that channels are spread over; `[channel]` if there is but one, or
        one connection to all. Called after `connect()`.
        """
        ...

    async def close(self) -> None:
        """Drop the connections, however broken they are, and all subscriptions with them."""
        ...

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """
        Publish payloads to channels, in this order; return once the server has taken all.

        Never sends anything twice: what fails may have arrived, unless with `NothingSent`.
        """
        ...

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels, at most some hundreds; return once that is in effect."""
        ...

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """End subscriptions to channels, at most some hundreds."""
        ...

    async def receive(self) -> bytes:
        """Wait for the next payload on any subscribed channel, for as long as it takes."""
        ...


@runtime_checkable
class PromptBroker(Broker, Protocol):
    """
    A broker that can publish at once, without a turn of the event loop in between.

    An ability of some drivers, and not asked of others: where it is missing everything goes
    through `publish()`, in batches.
    """

    def send(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        """
        Publish a payload after all that was published before; called between two `publish()`.

        Returns what is done once the server has taken it, or fails with the connection, of which
        `receive()` tells, too. Raises ConnectionError if it cannot be sent at once, as too much
        is on its way, or no server has the channel: nothing was sent then.
        """
        ...
