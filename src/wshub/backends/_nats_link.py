"""Two connections to one NATS server: one that publishes, one that listens."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from wshub.backends._nats_connection import NatsConnection
from wshub.backends._nats_requests import NatsRequests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("NatsLink",)

READ_AHEAD = 64
READ_AHEAD_BYTES = 1024 * 1024
"""Payloads, and bytes of them, that wait here; with so many, the socket and the server have to."""


class NatsLink:
    """
    Publishes to and listens on one server. What listens is never held up by what is answered.

    A connection that broke is not mended: whoever notices raises, and the supervisor begins anew.

    Attributes:
        requests: The one that publishes.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self.requests = NatsRequests(encrypted=encrypted)
        self._listening = NatsConnection(self._take, encrypted=encrypted)
        self._payloads: deque[bytes] = deque()
        self._size = 0
        self._arrived: asyncio.Event
        self._room: asyncio.Event
        self._sids: dict[str, int] = {}
        self._last_sid = 0

    async def connect(self, server: str, options: Mapping[str, Any]) -> None:
        """Open both connections."""
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        await self.requests.connect(server, options)
        await self._listening.open(server, options)
        # Whichever ends first, there is nothing more to hear.
        for connection in self._connections:
            connection.ended.add_done_callback(self._finish)

    async def close(self) -> None:
        """Drop both connections."""
        # Both at once, then the wait: it may be cancelled.
        if tasks := [*self.requests.connection.drop(), *self._listening.drop()]:
            await asyncio.wait(tasks)

    async def subscribe(self, subjects: Sequence[str]) -> None:
        """Subscribe to subjects; return once that is in effect."""
        commands: list[str] = []
        for subject in subjects:
            self._last_sid += 1
            self._sids[subject] = self._last_sid
            commands.append(f"SUB {subject} {self._last_sid}\r\n")
        await self._listening.settle("".join(commands).encode())

    async def unsubscribe(self, subjects: Sequence[str]) -> None:
        """End subscriptions."""
        commands = [f"UNSUB {self._sids.pop(subject)}\r\n" for subject in subjects]
        await self._listening.write("".join(commands).encode())

    async def receive(self) -> bytes:
        """Return the next payload."""
        while not self._payloads:
            self._arrived.clear()
            for connection in self._connections:
                connection.check()
            await self._arrived.wait()
        payload = self._payloads.popleft()
        self._size -= len(payload)
        self._room.set()
        return payload

    async def _take(self, data: bytes) -> None:
        self._payloads.append(data)
        self._size += len(data)
        self._arrived.set()
        while len(self._payloads) >= READ_AHEAD or self._size >= READ_AHEAD_BYTES:
            self._room.clear()
            await self._room.wait()

    @property
    def _connections(self) -> tuple[NatsConnection, NatsConnection]:
        return self.requests.connection, self._listening

    def _finish(self, _: asyncio.Future[Exception]) -> None:
        self._arrived.set()
