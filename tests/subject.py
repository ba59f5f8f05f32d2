"""One connection of the manager that is compared with its model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from wshub import ConnectionClosed
from wshub.testing import FaultySink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wshub import Connection, ConnectionManager


class Subject:
    """A connection over a faulty sink, and the handler that runs it."""

    def __init__(self, manager: ConnectionManager, user: str | None, rooms: Iterable[str]) -> None:
        self.sink = FaultySink()
        self.heard: list[str | bytes] = []
        self.senders: list[asyncio.Task[None]] = []
        self.handler = asyncio.create_task(self._run(manager, user, rooms))

    async def _run(
        self, manager: ConnectionManager, user: str | None, rooms: Iterable[str]
    ) -> None:
        async with manager.connection(self.sink.websocket, user=user, rooms=rooms) as connection:
            self.connection: Connection = connection
            async for message in connection:
                self.heard.append(message)
                if message == "bye":
                    return

    @property
    def got(self) -> list[str]:
        return [event["text"] for event in self.sink.sent if event["type"] == "websocket.send"]

    @property
    def got_code(self) -> int | None:
        """The code of the close frame, after which nothing came."""
        codes = [event["code"] for event in self.sink.sent if event["type"] == "websocket.close"]
        assert len(codes) <= 1
        assert not codes or self.sink.sent[-1]["type"] == "websocket.close"
        return codes[0] if codes else None

    def start_to_send(self, message: str) -> None:
        self.senders.append(asyncio.create_task(self.connection.send(message)))

    def start_to_close(self, code: int) -> asyncio.Task[None]:
        return asyncio.create_task(self.connection.close(code))

    def still_sending(self) -> int:
        """Return how many tasks wait in `send()`; the others ended as they should."""
        done = [sender for sender in self.senders if sender.done()]
        self.senders = [sender for sender in self.senders if not sender.done()]
        errors = [sender.exception() for sender in done if not sender.cancelled()]
        assert all(error is None or isinstance(error, ConnectionClosed) for error in errors)
        assert self.connection.closed is not None or not any(errors)
        return len(self.senders)

    def block(self) -> None:
        self.sink.blocked = self.sink.blocked or asyncio.Event()

    def take(self, *, on: bool) -> None:
        assert self.sink.blocked is not None
        self.sink.blocked.set()
        self.sink.blocked = None if on else asyncio.Event()
