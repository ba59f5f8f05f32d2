"""Two connections to one NATS server: one that publishes, one that listens."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from wshub.backends._nats_connection import NatsConnection

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
    """

    def __init__(self, *, encrypted: bool) -> None:
        self._publishing = NatsConnection(self._take_answer, encrypted=encrypted)
        self._listening = NatsConnection(self._take_payload, encrypted=encrypted)
        self._inbox = ""
        self._answers: list[bytes] = []
        self._missing = 0
        self._answered: asyncio.Future[None]
        self._payloads: deque[bytes] = deque()
        self._size = 0
        self._arrived: asyncio.Event
        self._room: asyncio.Event
        self._sids: dict[str, int] = {}
        self._last_sid = 0

    @property
    def max_payload(self) -> int:
        """Bytes of the longest payload that the server takes."""
        return self._publishing.max_payload

    async def connect(self, server: str, options: Mapping[str, Any]) -> None:
        """Open both connections."""
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        await self._publishing.open(server, options)
        self._inbox = self._publishing.new_inbox()
        await self._publishing.settle(b"SUB %b 1\r\n" % self._inbox.encode())
        await self._listening.open(server, options)
        # Whichever ends first, there is nothing more to hear.
        for connection in (self._publishing, self._listening):
            connection.ended.add_done_callback(self._finish)

    async def close(self) -> None:
        """Drop both connections."""
        tasks = [*self._publishing.drop(), *self._listening.drop()]
        if tasks:
            await asyncio.wait(tasks)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads to subjects; return once the server has passed all on."""
        await self._publishing.settle(b"".join(_publish(*message) for message in messages))

    async def ask(self, messages: Sequence[tuple[str, bytes]]) -> Sequence[bytes]:
        """
        Publish payloads to subjects; return the answers, one for each.

        An empty one means that nobody is there to answer.
        """
        self._answers, self._missing = [], len(messages)
        self._answered = asyncio.get_running_loop().create_future()
        packed = [_publish(*message, reply=self._inbox) for message in messages]
        await self._publishing.write(b"".join(packed))
        await self._publishing.wait(self._answered)
        return self._answers

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
            for connection in (self._publishing, self._listening):
                connection.check()
            await self._arrived.wait()
        payload = self._payloads.popleft()
        self._size -= len(payload)
        self._room.set()
        return payload

    async def _take_payload(self, data: bytes) -> None:
        self._payloads.append(data)
        self._size += len(data)
        self._arrived.set()
        while len(self._payloads) >= READ_AHEAD or self._size >= READ_AHEAD_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _take_answer(self, data: bytes) -> None:
        self._answers.append(data)
        if len(self._answers) == self._missing:
            self._answered.set_result(None)

    def _finish(self, _: asyncio.Future[Exception]) -> None:
        self._arrived.set()


def _publish(subject: str, payload: bytes, *, reply: str = "") -> bytes:
    head = f"PUB {subject} {reply} {len(payload)}" if reply else f"PUB {subject} {len(payload)}"
    return b"%b\r\n%b\r\n" % (head.encode(), payload)
