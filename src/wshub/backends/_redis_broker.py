"""Redis as a broker: its pub/sub, on one server or many."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wshub.backends._broker import BrokerRefused

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from wshub.backends._redis_link import RedisLink
    from wshub.backends._redis_servers import Servers

__all__ = ("RedisBroker",)


class RedisBroker:
    """Publishes to the servers that channels belong to, and listens on all of them."""

    def __init__(self, servers: Servers, refusals: Mapping[type[BaseException], str]) -> None:
        self._servers = servers
        self._refusals = refusals
        self._reading: dict[asyncio.Task[bytes], RedisLink] = {}

    async def connect(self) -> None:
        """Find the servers, and connect to them."""
        with self._explaining():
            await self._servers.connect()
        for link in self._servers.links:
            link.begin()

    def spread(self, channel: str) -> Sequence[str]:
        """Return a channel for each server, beginning with the one that is given."""
        return self._servers.spread(channel)

    async def close(self) -> None:
        """Drop all connections."""
        reading, self._reading = self._reading, {}
        for task in reading:
            task.cancel()
        links, self._servers.links = self._servers.links, []
        for link in links:
            link.close()
        if reading:
            await asyncio.wait(reading)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads, to all servers at a time, to each in this order."""
        encoded = [(channel.encode(), payload) for channel, payload in messages]
        batches: dict[RedisLink, list[tuple[bytes, bytes]]] = {}
        for message in encoded:
            batches.setdefault(self._servers.link_of(message[0]), []).append(message)
        with self._explaining():
            for link in batches:
                link.check()  # if one has failed, nothing goes to the others either
            # Written to all servers before any answer is waited for.
            await asyncio.gather(*(link.publish(batch) for link, batch in batches.items()))

    def send(self, channel: str, payload: bytes) -> asyncio.Future[None]:
        """Publish a payload at once; return what is done once the server has taken it."""
        name = channel.encode()
        return self._servers.link_of(name).send(name, payload)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Subscribe to channels, on the servers that they belong to."""
        for link, names in self._by_link(channels):
            await link.subscribe(names)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """End subscriptions."""
        for link, names in self._by_link(channels):
            await link.unsubscribe(names)

    async def receive(self) -> bytes:
        """Return the next payload from any server."""
        try:
            links = self._servers.links
            return await (links[0].receive() if len(links) == 1 else self._receive_from_any())
        except Exception as error:
            self._explain(error)
            raise

    async def _receive_from_any(self) -> bytes:
        if not self._reading:
            self._reading = {_read(link): link for link in self._servers.links}
        done, _ = await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        link = self._reading.pop(task)
        payload = task.result()
        self._reading[_read(link)] = link
        return payload

    def _by_link(self, channels: Sequence[str]) -> list[tuple[RedisLink, list[bytes]]]:
        groups: dict[RedisLink, list[bytes]] = {}
        for channel in channels:
            name = channel.encode()
            groups.setdefault(self._servers.link_of(name), []).append(name)
        return list(groups.items())

    @contextmanager
    def _explaining(self) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:
            self._explain(error)
            raise

    def _explain(self, error: Exception) -> None:
        """Raise `BrokerRefused` if the configuration is wrong; it is an outage otherwise."""
        problem = self._problem_of(error)
        if problem is not None:
            raise BrokerRefused(problem) from error

    def _problem_of(self, error: Exception) -> str | None:
        """Say what is wrong with the configuration; None: nothing, it is an outage."""
        causes: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            problem = self._refusals.get(type(cause))
            if problem is not None:
                return f"{problem} ({cause})"
            if isinstance(cause, ssl.SSLCertVerificationError):
                return f"its certificate is not trusted; see ssl_ca_certs ({cause})"
            cause = cause.__cause__ or cause.__context__
        return None


def _read(link: RedisLink) -> asyncio.Task[bytes]:
    return asyncio.create_task(link.receive(), name="wshub RedisBackend reads")
