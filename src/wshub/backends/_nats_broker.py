"""NATS as a broker: subjects of one server, or of the cluster that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from wshub.backends._nats_servers import NatsServers, explain_refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wshub.backends._nats_link import NatsLink
    from wshub.backends._nats_stream import NatsStream
    from wshub.backends._nats_url import Settings

__all__ = ("NatsBroker",)

MAX_PAYLOAD = 1024 * 1024
"""Of a NATS server that nobody has configured otherwise, until one is there to be asked."""


class NatsBroker:
    """
    Publishes to and listens on one of the servers, whichever answers.

    Attributes:
        max_payload: Bytes of the longest payload that the server takes, as far as is known.
    """

    def __init__(
        self, settings: Settings, make: Callable[[], NatsLink], stream: NatsStream | None
    ) -> None:
        self.max_payload = MAX_PAYLOAD
        self._settings = settings
        self._servers = NatsServers(settings)
        self._make = make
        self._stream = stream
        self._link = make()

    async def connect(self) -> None:
        """Connect to the first server that answers."""
        await self._servers.connect(self._connect_to, self.close)

    def spread(self, channel: str) -> Sequence[str]:
        """Return the channel that is given."""
        return [channel]

    async def close(self) -> None:
        """Drop the connections."""
        await self._link.close()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads, in this order."""
        verb = "publish" if self._stream else "deliver"
        named = [(_subject_of(channel, verb), payload) for channel, payload in messages]
        with explain_refusals():
            if self._stream:
                await self._stream.publish(self._link.requests, named)
            else:
                await self._link.requests.publish(named)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        with explain_refusals():
            await self._link.subscribe([_subject_of(channel) for channel in channels])

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """End subscriptions."""
        with explain_refusals():
            await self._link.unsubscribe([_subject_of(channel) for channel in channels])

    async def receive(self) -> bytes:
        """Return the next payload."""
        with explain_refusals():
            return await self._link.receive()

    async def _connect_to(self, server: str) -> None:
        self._link = self._make()
        await self._link.connect(server, self._settings.options)
        if self._stream:
            await self._stream.find(self._link.requests)
        self.max_payload = self._link.requests.connection.max_payload


def _subject_of(channel: str, verb: str = "deliver") -> str:
    """Return `prefix.verb.audience.name`, with nothing in it that means something to NATS."""
    prefix, *parts = (quote(part, safe="").replace(".", "%2E") for part in channel.split(":", 2))
    return ".".join((prefix, verb, *parts))
