"""A manager whose event loop is closed in the middle of everything, and that goes on in another."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.bait import Bait
from tests.uvicorn.fanout import SEND_BUFFER, block, opened, serve
from wshub import ConnectionManager, OutboxOptions
from wshub.testing import StalledClient, connect

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class TwoLoops:
    """The two parts of it, on one manager."""

    def __init__(self) -> None:
        outbox = OutboxOptions(flush_interval=0.5)  # else a turn that ends is never in the middle
        self.managed = ManagedApp(hear_nothing, ConnectionManager(outbox=outbox))
        self.left = AsyncExitStack()
        self.sender: asyncio.Task[None] | None = None

    async def leave(self) -> int:
        """Block one client, let a sender wait for it, and collect something for another."""
        server = await self.left.enter_async_context(serve(self.managed, send_buffer=SEND_BUFFER))
        for _ in range(2):
            await self.left.enter_async_context(StalledClient(f"{server.ws}/ws"))
        blocked, _ = await opened(self.managed, 2)
        await block(blocked)
        await blocked.send("x" * 1_000_000)
        self.sender = asyncio.create_task(blocked.send("x" * 1_000_000))
        await asyncio.sleep(0)
        await self.managed.manager.broadcast("x" * 50)
        return self.managed.manager.statistics().sent

    async def go_on(self, *, broadcasts: bool, before: int) -> dict[str, Any]:
        """Serve others, and tell how that went."""
        bait = Bait()
        bait.lay(30)
        manager = self.managed.manager
        if broadcasts:
            await manager.broadcast("to nobody")
        async with serve(self.managed) as server, connect(f"{server.ws}/ws") as client:
            await opened(self.managed, 3)
            got = []
            for number in range(3):
                await manager.broadcast(f"{number}")
                got.append(await client.receive())
            figures = manager.statistics()
        return {
            "got": got,
            "written to others": [data.decode("latin-1") for data in bait.took()],
            "connections": figures.connections,
            "sent": figures.sent - before,
            "queued": figures.queued,
            "dropped": figures.dropped,
        }


def main() -> None:
    """Run with the name of a kind of event loop, and what the second one does first."""
    name, first = sys.argv[1:]
    two = TwoLoops()
    loop = LOOPS[name]()
    before = loop.run_until_complete(two.leave())
    loop.close()
    loop = LOOPS[name]()
    story = loop.run_until_complete(two.go_on(broadcasts=first == "broadcasts", before=before))
    loop.close()
    sys.stdout.write(json.dumps(story))


if __name__ == "__main__":  # pragma: no branch  (it is run, never imported)
    main()
