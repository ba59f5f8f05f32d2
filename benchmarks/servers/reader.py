"""The plain endpoint with the least that reads all the time: one task and one future."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.servers import plain

if TYPE_CHECKING:
    from fastapi import WebSocket

__all__ = ("Server",)


class Server(plain.Server):
    """A task of its own reads from each client; the handler waits for the end of it."""

    async def receive(self, websocket: WebSocket) -> None:
        """Let a task receive, and wait as a handler that waits for a message does."""
        loop = asyncio.get_running_loop()
        arrival = loop.create_future()
        task = loop.create_task(super().receive(websocket))
        task.add_done_callback(lambda _: arrival.set_result(None))
        await arrival
