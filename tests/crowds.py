"""Many peers of one manager, without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.testing import FaultySink

if TYPE_CHECKING:
    from wshub import ConnectionManager


async def crowd(manager: ConnectionManager, size: int) -> list[FaultySink]:
    """Connect `size` peers."""
    sinks = [FaultySink() for _ in range(size)]
    for sink in sinks:
        await manager.connect(sink.websocket)
    return sinks


def part(sinks: list[FaultySink]) -> None:
    """Let the peers leave that are still there, as servers do once a close frame is out."""
    for sink in sinks:
        sink.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
