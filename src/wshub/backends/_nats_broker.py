"""NATS as a broker: subjects of one server, or of the cluster that it belongs to."""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wshub.backends._broker import BrokerRefused
from wshub.backends._deadline import Limit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from wshub.backends._nats_link import NatsLink
    from wshub.backends._nats_stream import NatsStream
    from wshub.backends._nats_url import Settings

__all__ = ("NatsBroker",)

MAX_PAYLOAD = 1024 * 1024
"""Of a NATS server that nobody has configured otherwise, until one is there to be asked."""

SHARE = 1.8
"""Seconds that several servers have together to answer, each the same."""

LOGIN = ("authorization violation", "authentication expired", "authentication revoked")
MARKS = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
"""What a file of credentials must have in it: nats-py looks for it for ever."""


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
        self._servers = deque(settings.servers)
        self._make = make
        self._stream = stream
        self._link = make()

    async def connect(self) -> None:
        """Connect to the first server that answers."""
        if self._settings.credentials is not None:
            _check_credentials(self._settings.credentials)
        left = number = len(self._servers)
        with _explaining():
            while True:
                left -= 1
                try:
                    async with Limit(SHARE / number):
                        await self._connect_to(self._servers[0])
                except Exception:  # another one may be better off
                    self._servers.rotate(-1)
                    if not left:
                        raise
                    await self.close()
                else:
                    return

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
        with _explaining():
            if self._stream:
                await self._stream.publish(self._link, named)
            else:
                await self._link.publish(named)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels."""
        with _explaining():
            await self._link.subscribe([_subject_of(channel) for channel in channels])

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """End subscriptions."""
        with _explaining():
            await self._link.unsubscribe([_subject_of(channel) for channel in channels])

    async def receive(self) -> bytes:
        """Return the next payload."""
        with _explaining():
            return await self._link.receive()

    async def _connect_to(self, server: str) -> None:
        self._link = self._make()
        await self._link.connect(server, self._settings.options)
        if self._stream:
            await self._stream.find(self._link)
        self.max_payload = self._link.max_payload


def _subject_of(channel: str, verb: str = "deliver") -> str:
    """Return `prefix.verb.audience.name`, with nothing in it that means something to NATS."""
    prefix, *parts = (quote(part, safe="").replace(".", "%2E") for part in channel.split(":", 2))
    return ".".join((prefix, verb, *parts))


def _check_credentials(path: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BrokerRefused(f"the credentials cannot be read: {error}") from error
    if not all(mark in content for mark in MARKS):
        raise BrokerRefused(f"{path} is no file of NATS credentials")


@contextmanager
def _explaining() -> Generator[None, None, None]:
    try:
        yield
    except Exception as error:
        problem = _problem_of(error)
        if problem is not None:
            raise BrokerRefused(problem) from error
        raise


def _problem_of(error: Exception) -> str | None:
    """Say what is wrong with the configuration; None: nothing, it is an outage."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).lower()
        if any(words in text for words in LOGIN):
            return f"it refuses the user, the password or what else proves who we are ({cause})"
        if "permissions violation" in text:
            return f"the user may not use a subject ({cause})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted; see ssl_ca_certs ({cause})"
        if isinstance(cause, FileNotFoundError):
            return f"a file is missing: {cause}"
        if type(cause).__module__.startswith("nkeys"):
            return "the seed of the nkey cannot be read"
        cause = cause.__cause__ or cause.__context__
    return None
