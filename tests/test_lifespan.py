"""Start and end of a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from tests.managed import ManagedApp, echo, stall
from tests.server import dial, serve, until
from wshub import ConnectionManager, OutboxOptions
from wshub.backends import MemoryBackend

if TYPE_CHECKING:
    from wshub.messages import Envelope


class RecordingBackend(MemoryBackend):
    """A memory backend that notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    async def publish(self, envelope: Envelope) -> None:
        self.calls.append("publish")
        await super().publish(envelope)


async def test_the_end_of_the_lifespan_closes_everyone_with_1012(ws: str) -> None:
    """Clients are told that the service restarts, and no task of the manager is left."""
    managed = ManagedApp(echo)
    async with serve(managed.app, ws=ws) as server, dial(f"{server.ws}/ws") as client:
        async with managed.manager.lifespan():
            assert await client.ask("hello") == "hello"
        assert await client.closed() == (1012, "shutting down")
        await until(lambda: managed.outcomes == [None])
        assert managed.manager.active_connections == []


async def test_a_stalled_peer_does_not_hold_up_the_end(ws: str) -> None:
    """The end of the lifespan is bounded, whatever a peer does."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(send_timeout=0.2)))
    async with serve(managed.app, ws=ws) as server, stall(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        async with managed.manager.lifespan():
            while not managed.opened[0].outbox.messages:
                await managed.opened[0].send("x" * 1_000_000)
        await until(lambda: not server.uvicorn.server_state.connections)


async def test_the_lifespan_starts_and_stops_the_backend() -> None:
    """As an app's lifespan it starts the backend before the first request and stops it last."""
    backend = RecordingBackend()
    manager = ConnectionManager(backend=backend)
    async with serve(FastAPI(lifespan=manager.lifespan)):
        assert backend.calls == ["start"]
        await manager.broadcast("nobody is here")
    assert backend.calls == ["start", "publish", "stop"]
