"""Who may join which rooms, publish in them, and call which routes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.exceptions import WebSocketException

from wshub import AccessDenied, ConnectionClosed, ConnectionManager, InvalidRoomName
from wshub.auth import (
    Principal,
    RoomRules,
    anyone,
    authenticate,
    bearer_header,
    require,
    with_scopes,
)
from wshub.rejections import RejectionHandler
from wshub.testing import FaultySink, connect, live_server, refusal

if TYPE_CHECKING:
    from wshub.auth import RoomRule

READER = Principal("ana", scopes=frozenset({"team:read"}))
WRITER = Principal("ben", scopes=frozenset({"team:read", "team:write"}))


async def own_room(principal: Principal | None, room: str) -> bool:
    """Let each user into a room of their own."""
    return principal is not None and room == f"user:{principal.user}"


JOIN = RoomRules(
    {"lobby": anyone, "team:*": with_scopes("team:read"), "user:*": own_room, "any": with_scopes()}
)
PUBLISH = RoomRules({"team:*": with_scopes("team:write")})


def make_manager(
    join: RoomRule | None = JOIN, publish: RoomRule | None = PUBLISH
) -> ConnectionManager:
    return ConnectionManager(authorize_join=join, authorize_publish=publish)


@pytest.mark.parametrize(
    ("principal", "room", "is_allowed"),
    [
        (None, "lobby", True),
        (None, "team:1", False),
        (None, "user:ana", False),
        (None, "any", False),
        (READER, "lobby", True),
        (READER, "team:1", True),
        (READER, "any", True),
        (READER, "user:ana", True),
        (READER, "user:ben", False),
        (READER, "TEAM:1", False),
        (READER, "lobby2", False),
        (READER, "admin", False),
        (Principal("eve"), "team:1", False),
    ],
)
async def test_rules_deny_by_default(
    principal: Principal | None, room: str, *, is_allowed: bool
) -> None:
    """The first pattern that fits decides, for `rooms=` and for join() alike."""
    manager = make_manager()
    assert await JOIN(principal, room) is is_allowed
    sink, early = FaultySink(), FaultySink()
    async with manager.connection(sink.websocket, principal=principal) as connection:
        for join in (connection.join, lambda room: manager.room(room).join(connection)):
            if is_allowed:
                await join(room)
            else:
                with pytest.raises(AccessDenied) as denied:
                    await join(room)
                assert (denied.value.action, denied.value.room) == ("join", room)
        assert connection.rooms == ({room} if is_allowed else set())
    if is_allowed:
        connection = await manager.connect(early.websocket, principal=principal, rooms=[room])
        assert connection.rooms == {room}
        await connection.close()
        connection._link.release()
    else:
        with pytest.raises(AccessDenied):
            await manager.connect(early.websocket, principal=principal, rooms=["lobby", room])
        assert early.sent == []


async def test_a_user_is_asked_about_too() -> None:
    """Whoever has no principal but an id is known by it."""
    manager = make_manager()
    async with manager.connection(FaultySink().websocket, user="ana") as connection:
        await connection.join("user:ana")
        with pytest.raises(AccessDenied):
            await connection.join("user:ben")


@pytest.mark.parametrize("answer", [None, 1, "yes"])
async def test_anything_but_true_is_a_no(answer: Any) -> None:
    """Also what a careless rule returns."""
    manager = make_manager(lambda *_: answer, lambda *_: answer)
    assert not await RoomRules({"*": lambda *_: answer})(READER, "lobby")
    async with manager.connection(FaultySink().websocket, principal=READER) as connection:
        with pytest.raises(AccessDenied):
            await connection.join("lobby")
        with pytest.raises(AccessDenied):
            await manager.broadcast("x", room="lobby", sender=connection)


async def test_a_rule_that_fails_lets_nobody_in() -> None:
    """Its error is the handler's."""

    def fail(principal: Principal | None, room: str) -> bool:
        raise OSError("no database")

    manager = make_manager(fail)
    async with manager.connection(FaultySink().websocket, principal=READER) as connection:
        with pytest.raises(OSError, match="no database"):
            await connection.join("lobby")
        assert connection.rooms == frozenset()


async def test_publishing_for_a_client() -> None:
    """With a sender the rules are asked; the app itself speaks as it likes."""
    manager = make_manager()
    reader, writer = FaultySink(), FaultySink()
    async with (
        manager.connection(reader.websocket, principal=READER, rooms=["team:1"]) as ana,
        manager.connection(writer.websocket, principal=WRITER) as ben,
    ):
        await manager.broadcast("of ben", room="team:1", sender=ben)
        await manager.room("team:1").broadcast("of ben again", sender=ben)
        for denied in (
            manager.broadcast("of ana", room="team:1", sender=ana),
            manager.room("team:1").broadcast("of ana", sender=ana),
            manager.broadcast("of ben", room="lobby", sender=ben),
        ):
            with pytest.raises(AccessDenied):
                await denied
        with pytest.raises(InvalidRoomName):
            await manager.broadcast("of ben", room="\n", sender=ben)
        with pytest.raises(TypeError, match="pass room="):
            await manager.broadcast("of ben", sender=ben)
        await manager.broadcast("of the app", room="team:1")
        texts = [event["text"] for event in reader.sent if "text" in event]
        assert texts == ["of ben", "of ben again", "of the app"]


async def test_nobody_publishes_behind_the_end_of_a_connection() -> None:
    """Not before the rule is asked, and not if it ends meanwhile, say because it expires."""
    asked, answered = asyncio.Event(), asyncio.Event()

    async def think(_: Principal | None, room: str) -> bool:
        asked.set()
        await answered.wait()
        return room == "team:1"

    manager = ConnectionManager(authorize_publish=think)
    reader, writer = FaultySink(), FaultySink()
    async with (
        manager.connection(reader.websocket, rooms=["team:1"]),
        manager.connection(writer.websocket, principal=WRITER) as ben,
    ):
        slow = asyncio.create_task(manager.broadcast("late", room="team:1", sender=ben))
        await asked.wait()
        ben.abort()
        answered.set()
        for late in (slow, manager.room("team:1").broadcast("later", sender=ben)):
            with pytest.raises(ConnectionClosed):
                await late
        assert [event for event in reader.sent if "text" in event] == []


async def test_without_rules() -> None:
    """The app decides whom it lets join, as in the tutorial; no client publishes by itself."""
    manager = ConnectionManager()
    sink = FaultySink()
    async with manager.connection(sink.websocket, user="ana", rooms=["tea"]) as connection:
        await connection.join("coffee")
        await manager.broadcast("of the app", room="tea")
        with pytest.raises(AccessDenied):
            await manager.broadcast("of ana", room="tea", sender=connection)
    assert [event["text"] for event in sink.sent if "text" in event] == ["of the app"]


async def find_user(token: str) -> Principal | None:
    return {"ana": READER, "ben": WRITER}.get(token)


get_principal = authenticate(bearer_header(), verify=find_user)
get_writer = require("team:read", "team:write", of=get_principal)


async def test_scopes_of_routes(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """require() lets in those with all scopes, and rooms that a client names are checked."""
    manager, app = make_manager(), FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())

    @app.get("/writers")
    async def writers(writer: Annotated[Principal, Depends(get_writer)]) -> str:
        return writer.user

    @app.websocket("/writers")
    async def write(
        writer: Annotated[Principal, Depends(get_writer)], websocket: WebSocket
    ) -> None:
        await websocket.accept()
        await websocket.close(4000)

    @app.websocket("/rooms/{room}")
    async def chat(
        websocket: WebSocket, room: str, who: Annotated[Principal, Depends(get_principal)]
    ) -> None:
        async with manager.connection(websocket, principal=who, rooms=[room]) as connection:
            while True:
                await connection.join(str(await connection.receive()))
                await connection.send(sorted(connection.rooms))

    ana, ben = ({"Authorization": f"Bearer {user}"} for user in ("ana", "ben"))
    async with (
        live_server(app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        assert (await http.get("/writers", headers=ben)).json() == "ben"
        assert (await http.get("/writers", headers=ana)).status_code == 403
        assert (await http.get("/writers")).status_code == 401
        told = await refusal(f"{server.ws}/writers", additional_headers=ana)
        assert (told.status, told.json()) == (403, {"code": 3003, "detail": "forbidden"})
        told = await refusal(f"{server.ws}/rooms/admin", additional_headers=ana)
        assert (told.status, told.json()["detail"]) == (403, "not allowed to join")
        async with connect(f"{server.ws}/rooms/team:1", additional_headers=ana) as client:
            await client.send("lobby")
            assert await client.receive_json() == ["lobby", "team:1"]
            await client.send("admin")
            assert await client.closed() == (3003, "not allowed to join")
        async with connect(f"{server.ws}/writers", additional_headers=ben) as client:
            assert (await client.closed())[0] == 4000
    assert "user 'ana' has no scope team:write" in caplog.text
    assert "user 'ana' may not join room 'admin'" in caplog.text


def test_require_needs_a_scope() -> None:
    """Else it would let everyone."""
    with pytest.raises(ValueError, match="at least one scope"):
        require(of=get_principal)
