"""Start and end of a manager."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from fastapi import FastAPI

from tests.managed import ManagedApp, echo
from wshub import ConnectionManager, OutboxOptions
from wshub.backends import MemoryBackend
from wshub.testing import StalledClient, connect, live_server, refusal, until

if TYPE_CHECKING:
    import pytest

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
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        async with managed.manager.lifespan():
            assert await client.ask("hello") == "hello"
        code, reason = await client.closed()
        assert code == 1012
        assert re.fullmatch(r"shutting down; retry-after=([0-4]\.\d|5\.0)", reason or "")
        await until(lambda: managed.outcomes == [None])
        assert managed.manager.active_connections == []


async def test_a_stalled_peer_does_not_hold_up_the_end(ws: str) -> None:
    """The end of the lifespan is bounded, whatever a peer does."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(send_timeout=0.2)))
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        async with managed.manager.lifespan():
            while not managed.opened[0].outbox.messages:
                await managed.opened[0].send("x" * 1_000_000)
        await until(lambda: not server.connections)


async def test_with_patience_for_slow_peers_the_end_is_bounded_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A `send_timeout` longer than the shutdown leaves no socket behind."""
    monkeypatch.setattr("wshub._drain.SHUTDOWN_TIMEOUT", 0.2)
    managed = ManagedApp(echo)
    async with live_server(managed.app) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        async with managed.manager.lifespan():
            while not managed.opened[0].outbox.messages:
                await managed.opened[0].send("x" * 1_000_000)
                await asyncio.sleep(0)
        await until(lambda: not server.connections)
    assert managed.manager.statistics().queued == 0


async def test_nobody_is_accepted_while_it_ends(ws: str) -> None:
    """A client that comes during the shutdown is refused, and not left without its reader."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(send_timeout=0.5)))
    async with live_server(managed.app, ws=ws) as server, StalledClient(f"{server.ws}/ws"):
        await until(lambda: managed.opened)
        (stalled,) = managed.opened
        async with AsyncExitStack() as lifespan:
            await lifespan.enter_async_context(managed.manager.lifespan())
            while not stalled.outbox.messages:
                await stalled.send("x" * 1_000_000)
                await asyncio.sleep(0)
            ending = asyncio.create_task(lifespan.aclose())
            await until(lambda: stalled.closed)
            await refusal(f"{server.ws}/ws")
            await ending
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("again") == "again"


async def test_the_lifespan_starts_and_stops_the_backend() -> None:
    """As an app's lifespan it starts the backend before the first request and stops it last."""
    backend = RecordingBackend()
    manager = ConnectionManager(backend=backend)
    async with live_server(FastAPI(lifespan=manager.lifespan)):
        assert backend.calls == ["start"]
        await manager.broadcast("nobody is here")
    assert backend.calls == ["start", "publish", "stop"]
