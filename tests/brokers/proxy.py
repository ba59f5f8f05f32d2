"""A TCP proxy that can drop what passes through it, without a word to either side."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ABOUT_PROBES = re.compile(rb"[:.]worker[:.]")


class Proxy:
    """
    Passes connections on to a port of this machine.

    Attributes:
        port: Where it listens.
        dropping: Whether bytes in either direction vanish, of old connections and of new ones.
        deafening: Whether only those that the server sends vanish, and only of connections on
            which it has named the channel of a probe before: those of subscribers.
        last: What clients say before `dropping` begins, with what they say it in; empty: nothing.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.dropping = False
        self.last = b""
        self.deafening = False
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Proxy, None]:
        """Listen for the length of the block; all connections end with it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            await self._connect(reader, writer)
        writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, server_writer))
                tasks.create_task(self._pass(server_reader, writer, from_server=True))
        except* OSError:
            pass  # one side has gone: so does the other
        finally:
            server_writer.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        from_server: bool = False,
    ) -> None:
        subscriber = False
        while data := await reader.read(65536):
            self.dropping = self.dropping or (self.last != b"" and self.last in data)
            subscriber = subscriber or (from_server and ABOUT_PROBES.search(data) is not None)
            if not self.dropping and not (self.deafening and subscriber):
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError
