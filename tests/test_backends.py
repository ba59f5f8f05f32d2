"""The seam between manager and backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.managed import ManagedApp, echo
from wshub import BackendUnavailable, ConnectionManager, Health, PayloadTooLarge
from wshub.messages import Publication
from wshub.testing import connect, live_server, until

if TYPE_CHECKING:
    from wshub.backends import Receiver
    from wshub.messages import Audience, Envelope


class QueueBackend:
    """
    What a broker does: takes an envelope, and delivers it later from a task of its own.

    Takes no message longer than ten bytes, and none at all before it is started.
    """

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Envelope] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.subscriptions: list[tuple[str, str]] = []

    def attach(self, receiver: Receiver) -> None:
        self._deliver = receiver.deliver

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def publish(self, envelope: Envelope) -> None:
        if self._task is None:
            raise BackendUnavailable("QueueBackend", "it is not started")
        if isinstance(envelope, Publication) and envelope.message.size > 10:
            raise PayloadTooLarge(envelope.message.size, 10)
        self._queue.put_nowait(envelope)

    def subscribe(self, audience: Audience, name: str) -> None:
        self.subscriptions.append((audience, name))

    def unsubscribe(self, audience: Audience, name: str) -> None:
        self.subscriptions.remove((audience, name))

    async def subscribed(self, audience: Audience, name: str) -> None:
        assert (audience, name) in self.subscriptions

    def health(self) -> Health:
        return Health(self._task is not None, "QueueBackend", None, 0, 0)

    async def _run(self) -> None:
        while True:
            await self._deliver(await self._queue.get())


async def test_everything_goes_through_the_backend_and_comes_back_from_it(ws: str) -> None:
    """A backend that delivers later works with the same manager: one path, one order."""
    backend = QueueBackend()
    manager = ConnectionManager(backend=backend)
    managed = ManagedApp(echo, manager)
    async with (
        manager.lifespan(),
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ann&room=tea") as client,
    ):
        await until(lambda: managed.opened)
        for number in range(3):
            await manager.broadcast(f"all {number}")
            await manager.broadcast(f"room {number}", room="tea")
            await manager.send_to_user("ann", f"user {number}")
        for number in range(3):
            for audience in ("all", "room", "user"):
                assert await client.receive() == f"{audience} {number}"
        assert backend.subscriptions == [("everyone", ""), ("user", "ann"), ("room", "tea")]
        assert manager.health().ready
        await manager.disconnect_user("ann", code=4000)
        assert (await client.closed())[0] == 4000
        await until(lambda: backend.subscriptions == [("everyone", "")])


async def test_a_backend_that_refuses_tells_the_sender_only(ws: str) -> None:
    """Its errors reach who publishes; nobody is disconnected and nothing is counted as sent."""
    manager = ConnectionManager(backend=QueueBackend())
    managed = ManagedApp(echo, manager)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await until(lambda: managed.opened)
        with pytest.raises(BackendUnavailable, match=r"not started; try again later"):
            await manager.broadcast("hi")
        async with manager.lifespan():
            with pytest.raises(PayloadTooLarge, match=r"11 bytes is over .* limit of 10 bytes"):
                await manager.broadcast("x" * 11)
            assert manager.statistics().published == 0
            assert await client.ask("personal") == "personal"
