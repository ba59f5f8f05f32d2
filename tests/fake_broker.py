"""A broker without a network, for what real servers seldom do."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from wshub.backends import _supervisor
from wshub.backends._options import Options
from wshub.backends._supervisor import SupervisedBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.testing._worker import Worker


class Server:
    """
    The server between fake brokers.

    Attributes:
        problem: What connecting runs into, if anything.
        hung: Names of the methods that never end.
        stubborn: Names of the methods that end as if nothing were, once they are cancelled.
        entered: Names of such methods that were called.
        slow: Seconds that each answer takes.
        silent: Whether nothing that is published arrives.
        late: Seconds that probes are under way.
        connects: When somebody tried to connect.
        published: The channels of messages that are no probes.
    """

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.hung: set[str] = set()
        self.stubborn: set[str] = set()
        self.entered: set[str] = set()
        self.slow = 0.0
        self.silent = False
        self.late = 0.0
        self.connects: list[float] = []
        self.brokers: list[FakeBroker] = []
        self.published: list[str] = []

    def publish(self, channel: str, payload: bytes) -> None:
        if ":worker:" not in channel:
            self.published.append(channel)
        for broker in self.brokers:
            if channel in broker.channels and not self.silent:
                broker.arrived.put_nowait(payload)

    def drop(self, error: Exception) -> None:
        """Let all connections fail."""
        for broker in self.brokers:
            broker.arrived.put_nowait(error)


class FakeBroker:
    """A broker without a network."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channels: set[str] = set()
        self.arrived: asyncio.Queue[bytes | Exception]

    async def connect(self) -> None:
        self.server.connects.append(time.monotonic())
        await self._answer("connect")
        if self.server.problem is not None:
            raise self.server.problem
        self.arrived = asyncio.Queue()
        self.server.brokers.append(self)

    def spread(self, channel: str) -> Sequence[str]:
        return [channel, f"{channel}:1"]

    async def close(self) -> None:
        self.channels.clear()
        if self in self.server.brokers:
            self.server.brokers.remove(self)
        await self._answer("close")
        if self.server.problem is not None:
            raise self.server.problem

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self._answer("publish")
        for channel, payload in messages:
            if ":worker:" in channel:
                loop = asyncio.get_running_loop()
                loop.call_later(self.server.late, self.server.publish, channel, payload)
            else:
                self.server.publish(channel, payload)

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._answer("subscribe")
        self.channels.update(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self.channels.difference_update(channels)
        await self._answer("unsubscribe")

    async def receive(self) -> bytes:
        arrived = await self.arrived.get()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    async def _answer(self, method: str) -> None:
        await asyncio.sleep(self.server.slow)
        if method in self.server.hung:
            await asyncio.get_running_loop().create_future()
        if method in self.server.stubborn:
            self.server.entered.add(method)
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()


class FakeBackend(SupervisedBackend):
    """A backend around a fake broker."""

    def __init__(self, server: Server, options: Options | None = None) -> None:
        super().__init__(FakeBroker(server), options or Options())


@pytest.fixture
def server() -> Server:
    """What fake brokers connect to."""
    return Server()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in tenths of seconds what else takes seconds."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.2)
    monkeypatch.setattr(_supervisor, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(_supervisor, "CLOSING", 0.1)


def kinds(worker: Worker) -> list[str]:
    return [type(event).__name__ for event in worker.events]
