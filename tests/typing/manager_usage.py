"""What an editor infers in an app that uses the manager. Checked, never executed."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import assert_type

from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette

from wshub import (
    CloseCode,
    Connection,
    ConnectionManager,
    OutboxOptions,
    Room,
    Statistics,
)
from wshub.backends import (
    Backend,
    Deliver,
    Health,
    MemoryBackend,
    Receiver,
    RedisBackend,
    backend_from_url,
)
from wshub.messages import Audience, Envelope

manager = ConnectionManager()

# Every option has a type of its own; the words of `overflow` are checked.
ConnectionManager(
    backend=MemoryBackend(),
    outbox=OutboxOptions(max_messages=10, overflow="drop_oldest", send_timeout=2.5),
    read_ahead=8,
)
OutboxOptions(overflow="drop_all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The lifespan fits FastAPI and Starlette, and an `async with` of one's own.
FastAPI(lifespan=manager.lifespan)
Starlette(lifespan=manager.lifespan)


async def own_lifespan(app: FastAPI) -> None:
    async with manager.lifespan(app):
        pass
    async with manager.lifespan():
        pass


async def the_tutorials_surface(websocket: WebSocket) -> None:
    connection = await manager.connect(websocket)
    assert_type(connection, Connection[None])
    assert_type(manager.disconnect(websocket), None)
    assert_type(await manager.send_personal_message("hello", websocket), None)
    assert_type(await manager.broadcast("hello"), None)
    assert_type(manager.active_connections, list[WebSocket])


@dataclass
class Player:
    """What an app keeps for each connection."""

    name: str
    score: int = 0


async def state_has_the_type_that_was_given(websocket: WebSocket) -> None:
    without = manager.connection(websocket)
    assert_type(without, AbstractAsyncContextManager[Connection[None]])
    async with without as connection:
        assert_type(connection, Connection[None])
        assert_type(connection.state, None)

    async with manager.connection(websocket, state=Player("ann")) as playing:
        assert_type(playing, Connection[Player])
        assert_type(playing.state, Player)
        playing.state.score += 1
        playing.state.points = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        takes_any_connection(playing)


def takes_any_connection(connection: Connection) -> str:
    """`Connection` alone is a `Connection[object]`, and every connection is one."""
    assert_type(connection.state, object)
    return connection.id


async def options_of_a_connection(websocket: WebSocket, names: Sequence[str]) -> None:
    async with manager.connection(
        websocket,
        user="ann",
        rooms=names,
        subprotocol="chat.v1",
        headers=[(b"x-served-by", b"me")],
    ) as connection:
        assert_type(connection.user, str | None)
        assert_type(connection.rooms, frozenset[str])
        assert_type(connection.websocket, WebSocket)
        assert_type(connection.outbox.messages, int)
        assert_type(connection.outbox.bytes, int)


async def rooms_and_users(connection: Connection, websocket: WebSocket) -> None:
    room = manager.room("lobby")
    assert_type(room, Room)
    assert_type(room.name, str)
    assert_type(room.members, list[Connection[object]])
    assert_type([member.user for member in room.members], list[str | None])
    await room.join(connection)
    await room.leave(connection)
    await room.broadcast("hello", exclude=[connection, websocket, connection.id])

    await manager.broadcast({"any": ["JSON", 1, None]}, room="lobby", exclude=(connection,))
    await manager.send_to_user("ann", b"bytes")
    await manager.disconnect_user("ann", code=CloseCode.UNAUTHORIZED, reason="logged out")
    await manager.disconnect_user("ann", code=4001)


def figures() -> None:
    statistics = manager.statistics()
    assert_type(statistics, Statistics)
    assert_type(statistics.connections, int)
    assert_type(statistics.dropped["overflow"], int)
    assert_type(statistics.evicted["send_timeout"], int)
    statistics.dropped.get("lost")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    statistics.skipped.get("lost")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_type(manager.health(), Health)
    for count in statistics.evicted.values():
        assert_type(count, int)


class BackendOfTheApp:
    """An app's own backend needs no base class."""

    def attach(self, receiver: Receiver) -> None:
        assert_type(receiver.deliver, Deliver)
        self.deliver = receiver.deliver

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, envelope: Envelope) -> None:
        await self.deliver(envelope)

    def subscribe(self, audience: Audience, name: str) -> None: ...

    def unsubscribe(self, audience: Audience, name: str) -> None: ...

    async def subscribed(self, audience: Audience, name: str) -> None: ...

    def health(self) -> Health:
        return Health(ready=True, backend="mine", problem=None, seconds=0.0, outages=0)


class HalfABackend:
    """What lacks an ability is told by the checker."""

    def attach(self, receiver: Receiver) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def publish(self, envelope: Envelope) -> None: ...


ConnectionManager(backend=HalfABackend())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
own: Backend = BackendOfTheApp()
assert_type(backend_from_url("redis://localhost", prefix="shop"), Backend)
redis: Backend = RedisBackend("redis://localhost", sharded=True, options={"ssl_ca_certs": "ca.pem"})
RedisBackend(prefix=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ConnectionManager(backend=own)
ConnectionManager(backend=BackendOfTheApp())
