"""Rooms, users, everyone: who gets a message and who does not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.managed import ManagedApp
from wshub import ConnectionClosed, ConnectionManager, Room
from wshub.testing import Client, connect, live_server, until

if TYPE_CHECKING:
    from wshub import Connection


async def follow(connection: Connection) -> None:
    """Join and leave rooms as the peer says: `+name`, `-name`; answer with the rooms it is in."""
    async for text in connection.iter_text():
        if text[0] == "+":
            await connection.join(text[1:])
        else:
            await connection.leave(text[1:])
        await connection.send(",".join(sorted(connection.rooms)))


async def hears(client: Client, expected: str, manager: ConnectionManager) -> None:
    """Check that `expected` is the next message: nothing else came before it."""
    assert await client.receive() == expected, manager.statistics()


async def test_a_room_reaches_its_members_only(ws: str) -> None:
    """Members get it, others do not, and a member that left no longer does."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?room=tea") as tea,
        connect(f"{server.ws}/ws?room=tea&room=milk") as both,
        connect(f"{server.ws}/ws") as none,
    ):
        await until(lambda: len(managed.opened) == 3)
        await manager.broadcast("tea time", room="tea")
        await manager.broadcast("milk time", room="milk")
        await manager.broadcast("no one is here", room="empty")
        await manager.broadcast("everyone")
        await hears(tea, "tea time", manager)
        await hears(tea, "everyone", manager)
        await hears(both, "tea time", manager)
        await hears(both, "milk time", manager)
        await hears(both, "everyone", manager)
        await hears(none, "everyone", manager)
        assert await none.ask("+milk") == "milk"
        assert await none.ask("+milk") == "milk"
        assert await both.ask("-milk") == "tea"
        assert await both.ask("-milk") == "tea"
        assert await both.ask("-never there") == "tea"
        await manager.broadcast("more milk", room="milk")
        await manager.broadcast("everyone")
        await hears(none, "more milk", manager)
        await hears(both, "everyone", manager)
        assert manager.statistics().rooms == 2
    await until(lambda: manager.statistics().rooms == 0)


async def test_a_room_handle_does_the_same(ws: str) -> None:
    """`manager.room(name)` joins, leaves, lists and broadcasts."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws") as first,
        connect(f"{server.ws}/ws") as second,
    ):
        await until(lambda: len(managed.opened) == 2)
        a, b = managed.opened
        room = manager.room("lounge")
        assert room.members == []
        await room.join(a)
        await room.join(b)
        assert room.members == [a, b]
        assert a.rooms == {"lounge"}
        await room.broadcast({"hello": "all"})
        await room.broadcast("not to b", exclude=[b])
        await room.leave(b)
        await room.broadcast("only a")
        await manager.broadcast("end")
        for expected in ('{"hello":"all"}', "not to b", "only a", "end"):
            await hears(first, expected, manager)
        for expected in ('{"hello":"all"}', "end"):
            await hears(second, expected, manager)
        assert repr(room) == "<Room 'lounge'>"
        assert isinstance(room, Room)
        await b.close()
        with pytest.raises(ConnectionClosed):
            await room.join(b)


async def test_exclude_takes_connections_websockets_and_ids(ws: str) -> None:
    """All three forms leave a connection out; unknown ones are ignored."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws") as client,
        connect(f"{server.ws}/ws") as other,
    ):
        await until(lambda: len(managed.opened) == 2)
        connection = managed.opened[0]
        strange = type(connection.websocket)(
            {"type": "websocket"}, connection.websocket.receive, connection.websocket.send
        )
        for excluded in (connection, connection.websocket, connection.id):
            await manager.broadcast("without", exclude=[excluded, strange, "unknown"])
        await manager.broadcast("with")
        await hears(client, "with", manager)
        for expected in ("without", "without", "without", "with"):
            await hears(other, expected, manager)


async def test_a_user_is_reached_in_every_tab(ws: str) -> None:
    """Need 17: `send_to_user` reaches all connections of a user, and nobody else."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ann") as tab,
        connect(f"{server.ws}/ws?user=ann") as other_tab,
        connect(f"{server.ws}/ws?user=bob") as bob,
    ):
        await until(lambda: len(managed.opened) == 3)
        assert manager.statistics().users == 2
        await manager.send_to_user("ann", "psst")
        await manager.send_to_user("nobody", "lost")
        await manager.broadcast("end")
        for client in (tab, other_tab):
            await hears(client, "psst", manager)
            await hears(client, "end", manager)
        await hears(bob, "end", manager)


async def test_a_user_can_be_disconnected(ws: str) -> None:
    """Need 16: every tab of the user closes, after what was sent before; others stay."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ann") as tab,
        connect(f"{server.ws}/ws?user=ann") as other_tab,
        connect(f"{server.ws}/ws?user=bob") as bob,
    ):
        await until(lambda: len(managed.opened) == 3)
        await manager.send_to_user("ann", "goodbye")
        await manager.disconnect_user("ann", code=3000, reason="logged out")
        await manager.disconnect_user("nobody")
        assert len(manager.active_connections) == 1
        for client in (tab, other_tab):
            await hears(client, "goodbye", manager)
            assert await client.closed() == (3000, "logged out")
        await until(lambda: managed.outcomes == [None, None])
        await manager.broadcast("still here?")
        await hears(bob, "still here?", manager)


async def test_who_is_disconnected_by_hand_stays_out(ws: str) -> None:
    """After `manager.disconnect()` neither user, room nor a later join brings it back."""
    managed = ManagedApp(follow)
    manager = managed.manager
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ann&room=tea") as ann,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        manager.disconnect(connection.websocket)
        manager.disconnect(connection.websocket)
        await connection.join("milk")
        assert manager.room("milk").members == []
        assert manager.statistics()[:3] == (0, 0, 0)
        await manager.send_to_user("ann", "psst")
        await connection.send("direct")
        await hears(ann, "direct", manager)


async def test_all_see_one_order_even_in_long_broadcasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 4: broadcasts that give the loop a turn in between do not overtake each other."""
    monkeypatch.setattr("wshub._relay.TURN", 2)
    managed = ManagedApp(follow)
    manager = managed.manager
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(live_server(managed.app))
        clients = [
            await stack.enter_async_context(connect(f"{server.ws}/ws?room=all")) for _ in range(7)
        ]
        await until(lambda: len(managed.opened) == 7)
        await asyncio.gather(
            *(
                manager.broadcast(str(number), room="all" if number % 2 else None)
                for number in range(9)
            )
        )
        for client in clients:
            assert [await client.receive() for _ in range(9)] == [
                str(number) for number in range(9)
            ]


async def test_a_cancelled_broadcast_reaches_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled halfway it still reaches everyone; cancelled while it waits, nobody."""
    monkeypatch.setattr("wshub._relay.TURN", 1)
    managed = ManagedApp(follow)
    manager = managed.manager
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(live_server(managed.app))
        clients = [await stack.enter_async_context(connect(f"{server.ws}/ws")) for _ in range(5)]
        await until(lambda: len(managed.opened) == 5)
        started = asyncio.create_task(manager.broadcast("started"))
        waiting = asyncio.create_task(manager.broadcast("waiting"))
        await asyncio.sleep(0)
        started.cancel()
        waiting.cancel()
        await asyncio.wait({started, waiting})
        assert started.cancelled()
        assert waiting.cancelled()
        await manager.broadcast("end")
        for client in clients:
            assert [await client.receive(), await client.receive()] == ["started", "end"]
    assert manager.statistics().published == 3
