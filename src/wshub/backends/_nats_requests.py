"""A connection to a NATS server on which is published, and answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wshub.backends._nats_connection import NatsConnection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("NatsRequests",)


class NatsRequests:
    """
    Publishes to one server, and asks it.

    Attributes:
        connection: The connection. One that broke is not mended.
    """

    def __init__(self, *, encrypted: bool) -> None:
        self.connection = NatsConnection(self._take, encrypted=encrypted)
        self._inbox = ""
        self._answers: list[bytes] = []
        self._missing = 0
        self._answered: asyncio.Future[None]

    async def connect(self, server: str, options: Mapping[str, Any]) -> None:
        """Connect, and listen for answers."""
        await self.connection.open(server, options)
        self._inbox = self.connection.new_inbox()
        await self.connection.settle(b"SUB %b 1\r\n" % self._inbox.encode())

    async def close(self) -> None:
        """Drop the connection."""
        if tasks := self.connection.drop():
            await asyncio.wait(tasks)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads to subjects; return once the server has passed all on."""
        packed = [_pack(subject, "", b"", payload) for subject, payload in messages]
        await self.connection.settle(b"".join(packed))

    async def ask(
        self, messages: Sequence[tuple[str, bytes]], header: bytes = b""
    ) -> Sequence[bytes]:
        """
        Publish payloads to subjects; return the answers, one for each.

        An empty one means that nobody is there to answer. All have `header`, if there is one.
        """
        self._answers, self._missing = [], len(messages)
        self._answered = asyncio.get_running_loop().create_future()
        packed = [_pack(subject, self._inbox, header, payload) for subject, payload in messages]
        await self.connection.write(b"".join(packed))
        await self.connection.wait(self._answered)
        return self._answers

    async def _take(self, data: bytes) -> None:
        self._answers.append(data)
        if len(self._answers) == self._missing:
            self._answered.set_result(None)


def _pack(subject: str, reply: str, header: bytes, payload: bytes) -> bytes:
    words = [subject, reply] if reply else [subject]
    if header:
        header = b"NATS/1.0\r\n%b\r\n\r\n" % header
        words.append(str(len(header)))
    verb = "HPUB" if header else "PUB"
    head = " ".join((verb, *words, str(len(header) + len(payload))))
    return b"%b\r\n%b%b\r\n" % (head.encode(), header, payload)
