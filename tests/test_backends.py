"""The seam between manager and backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import ManagedApp, echo
from wshub import BackendUnavailable, Connection, ConnectionManager, Health, PayloadTooLarge
from wshub.backends import MemoryBackend, RedisBackend, backend_from_url
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


def test_what_lacks_an_ability_is_no_backend() -> None:
    """It is told when the manager is made."""

    class Half:
        async def publish(self, envelope: Envelope) -> None:
            """Publish, which is not all that a backend does."""

    with pytest.raises(TypeError, match=r"^Half is no backend: see wshub\.backends\.Backend$"):
        ConnectionManager(backend=Half())  # type: ignore[arg-type]


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


class SlowBackend(QueueBackend):
    """Subscribes to rooms only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.may_subscribe = asyncio.Event()

    async def subscribed(self, audience: Audience, name: str) -> None:
        if audience == "room":
            self.waiting += 1
            await self.may_subscribe.wait()


async def test_a_connection_begins_once_its_rooms_are_subscribed_to() -> None:
    """All of them at once; in the meantime it is a member, and what is sent here reaches it."""
    backend = SlowBackend()
    managed = ManagedApp(echo, manager := ConnectionManager(backend=backend))
    async with (
        manager.lifespan(),
        live_server(managed.app) as server,
        connect(f"{server.ws}/ws?user=ann&room=tea&room=milk") as client,
    ):
        await until(lambda: backend.waiting)
        assert {name for _, name in backend.subscriptions} == {"", "ann", "tea", "milk"}
        assert not managed.opened
        await manager.broadcast("hi", room="milk")
        assert await client.receive() == "hi"
        backend.may_subscribe.set()
        assert await client.ask("begun") == "begun"


async def test_joining_ends_once_the_room_is_subscribed_to() -> None:
    """Also for those who join while the first one waits for it."""

    async def join_late(connection: Connection) -> None:
        await connection.join("late")
        await connection.send("joined")
        await connection.receive()

    backend = SlowBackend()
    managed = ManagedApp(join_late, manager := ConnectionManager(backend=backend))
    async with (
        manager.lifespan(),
        live_server(managed.app) as server,
        connect(f"{server.ws}/ws") as one,
        connect(f"{server.ws}/ws") as two,
    ):
        await until(lambda: backend.waiting == 2)
        await manager.broadcast("hi", room="late")
        backend.may_subscribe.set()
        for client in (one, two):
            assert [await client.receive() for _ in range(2)] == ["hi", "joined"]


async def test_a_connection_that_is_cancelled_before_it_begins_is_closed() -> None:
    """Its handler never had it: nobody else would close it."""
    backend = SlowBackend()
    manager = ConnectionManager(backend=backend)
    app, handlers = FastAPI(), list[asyncio.Task[Any]]()

    @app.websocket("/ws")
    async def handle(websocket: WebSocket) -> None:
        handlers.append(asyncio.create_task(manager.connect(websocket, rooms=["tea"])))
        await asyncio.wait(handlers)

    async with live_server(app) as server, connect(f"{server.ws}/ws") as client:
        await until(lambda: backend.waiting)
        handlers[0].cancel()
        assert (await client.closed())[0] == 1001
        assert manager.statistics().connections == 0
        assert backend.subscriptions == [("everyone", "")]


def test_a_url_names_a_backend() -> None:
    """With the options that this backend takes."""
    assert isinstance(backend_from_url("memory://"), MemoryBackend)
    for scheme in ("redis", "rediss", "valkey", "VALKEYS", "redis+cluster"):
        assert isinstance(backend_from_url(f"{scheme}://localhost", prefix="a"), RedisBackend)
    with pytest.raises(ValueError, match="prefix must be"):
        backend_from_url("redis://localhost", prefix="a:b")


@pytest.mark.parametrize("url", ["", "redis", "user:s3cret@host", "mysql://user:s3cret@localhost"])
def test_a_url_that_names_none(url: str) -> None:
    """The error has the schemes that there are, and not the URL."""
    with pytest.raises(ValueError, match=r"there are memory://, nats://, postgres://") as error:
        backend_from_url(url)
    assert "s3cret" not in str(error.value)
