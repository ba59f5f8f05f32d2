"""What a benchmark can ask of a server: each method is a command."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.servers.contract import RoomServer
from benchmarks.texts import texts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from benchmarks.servers.contract import Server

__all__ = ("Control",)

ROOTS = tuple(
    f"{path}/"
    for path in (Path(sys.prefix).resolve(), Path.cwd(), Path(asyncio.__file__).parents[1])
)
"""Where files are that Python may name."""


class Control:
    """Carries out commands on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._texts: dict[tuple[str, int], Iterator[str]] = {}
        self.commands: dict[str, Callable[..., Awaitable[object]]] = {
            "broadcast": self.broadcast,
            "collect": self.collect,
            "count": self.count,
            "forget": self.forget,
            "join": self.join,
            "leave": self.leave,
            "pace": self.pace,
            "trace": self.trace,
        }

    async def broadcast(
        self,
        *,
        messages: int,
        size: int,
        kind: str = "same",
        per_turn: int = 1,
        rooms: Sequence[str | None] = (None,),
    ) -> None:
        """Send messages, to one of `rooms` after the other, `per_turn` in each loop turn."""
        upcoming = self._texts.setdefault((kind, size), cycle(texts(kind, size)))
        broadcast = self._server.broadcast
        for number, room in enumerate(islice(cycle(rooms), messages), start=1):
            await broadcast(next(upcoming), room)
            if number % per_turn == 0:
                await asyncio.sleep(0)

    async def pace(self, *, messages: int, size: int, rate: float) -> None:
        """Send `rate` messages a second, each with the time at which it was sent in it."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(messages):
            await asyncio.sleep(start + number / rate - loop.time())
            await self._server.broadcast(f"@{time.monotonic_ns():019}".ljust(size, "x"), None)

    async def join(self, *, rooms: int, members: int) -> int:
        """
        Have every connection join `rooms` rooms that so many share.

        Return the nanoseconds of processor time. Each name is a string of its own, as one that
        came from a client would be.
        """
        server = self._room_server()
        return await self._visit(server, server.join, rooms, members)

    async def leave(self, *, rooms: int, members: int) -> int:
        """Undo `join`; return the nanoseconds of processor time."""
        server = self._room_server()
        return await self._visit(server, server.leave, rooms, members)

    async def forget(self) -> None:
        """Drop the connections that only the benchmark holds."""
        self._room_server().forget()

    async def count(self) -> int:
        """Return how many connections there are."""
        return self._server.connection_count

    async def collect(self) -> None:
        """Free what is garbage."""
        gc.collect()

    async def trace(self) -> dict[str, int]:
        """Return the bytes that Python holds, by the file that asked for them."""
        gc.collect()
        held: dict[str, int] = {}
        for statistic in tracemalloc.take_snapshot().statistics("filename"):
            name = _shorten(statistic.traceback[0].filename)
            held[name] = held.get(name, 0) + statistic.size
        return held

    def _room_server(self) -> RoomServer:
        assert isinstance(self._server, RoomServer)
        return self._server

    async def _visit(
        self,
        server: RoomServer,
        action: Callable[[object, str], Awaitable[None]],
        rooms: int,
        members: int,
    ) -> int:
        used = 0
        for index, connection in enumerate(server.connections):
            names = [f"room-{members}-{index // members}-{number}" for number in range(rooms)]
            start = time.process_time_ns()
            for name in names:
                await action(connection, name)
            used += time.process_time_ns() - start
        return used


def _shorten(filename: str) -> str:
    """Return a path without the part that is different on every machine."""
    # With strings alone: pathlib interns names, and that table's growth would be counted.
    for root in ROOTS:
        if filename.startswith(root):
            return filename.removeprefix(root).rpartition("site-packages/")[2]
    return filename
