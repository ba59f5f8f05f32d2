"""Each row of the bad-input table in the docs: who is told what, and that nobody else notices."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

from tests.managed import ManagedApp, echo
from wshub import (
    AlreadyConnected,
    Connection,
    ConnectionManager,
    InvalidRoomName,
    InvalidUserId,
    MessageNotEncodable,
    NotConnected,
)
from wshub.testing import Client, DeadClient, LiveServer, connect, live_server, refusal, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

BAD_NAMES = ["", "x" * 256, "ö" * 128, "tab\tin it", "\x00", "\x9f", "\ud800"]


class Order(BaseModel):
    """What a well-behaved client sends."""

    item: str
    count: int


async def read(connection: Connection) -> None:
    """Take text, bytes, JSON or orders, as the peer's user id says; echo anything else."""
    if connection.user == "text":
        async for text in connection.iter_text():
            await connection.send(text)
    elif connection.user == "bytes":
        async for data in connection.iter_bytes():
            await connection.send(data)
    elif connection.user == "json":
        async for value in connection.iter_json():
            await connection.send(value)
    elif connection.user == "order":
        async for order in connection.iter_model(Order):
            await connection.send(order)
    else:
        await echo(connection)


class Bystander:
    """A client in the same app, which must not notice anything."""

    def __init__(self, managed: ManagedApp, server: LiveServer, client: Client) -> None:
        self.managed = managed
        self.server = server
        self.client = client

    async def noticed_nothing(self) -> None:
        """Check that the bystander is connected, and that the next thing it hears is its own."""
        await self.managed.manager.broadcast("still here")
        assert await self.client.receive() == "still here"
        assert await self.client.ask("hello") == "hello"


@asynccontextmanager
async def beside(ws: str, **options: Any) -> AsyncIterator[Bystander]:
    """Serve `read` with one well-behaved client connected."""
    managed = ManagedApp(read)
    async with (
        live_server(managed.app, ws=ws, **options) as server,
        connect(f"{server.ws}/ws?user=bystander") as client,
    ):
        await until(lambda: managed.opened)
        yield Bystander(managed, server, client)


@pytest.mark.parametrize(
    ("user", "good", "bad", "code", "reason"),
    [
        ("text", "good", b"bad", 1003, "expected text, got binary"),
        ("bytes", b"good", "bad", 1003, "expected binary, got text"),
        ("json", "[1]", b"[1]", 1003, "expected text, got binary"),
        ("json", "[1]", "{", 1007, "invalid JSON: Expecting property name"),
        ("json", "[1]", "NaN", 1007, "invalid JSON: NaN is not JSON"),
        ("json", "[1]", "[" * 100_000, 1007, "invalid JSON: maximum recursion depth"),
        ("order", '{"item":"tea","count":1}', "{", 1007, "Invalid JSON"),
        ("order", '{"item":"tea","count":1}', '{"item":"tea"}', 1007, "count: Field required"),
        ("order", '{"item":"tea","count":1}', '{"item":1,"count":1}', 1007, "item: Input should"),
    ],
)
async def test_a_message_of_the_wrong_kind(
    ws: str, user: str, good: str | bytes, bad: str | bytes, code: int, reason: str
) -> None:
    """Row 12: the peer is closed with 1003 or 1007 and told why; the handler never sees it."""
    async with beside(ws) as bystander:
        async with connect(f"{bystander.server.ws}/ws?user={user}") as client:
            assert await client.ask(good) == good
            await client.send(bad)
            closed_code, closed_reason = await client.closed()
            assert closed_code == code
            assert closed_reason is not None
            assert closed_reason.startswith(reason)
        await bystander.noticed_nothing()


async def test_binary_where_the_tutorial_expects_text(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 12: it ends as a disconnect with 1003, not as a KeyError, 1006 and a ghost."""
    manager = ConnectionManager()
    app = FastAPI()
    left: list[str] = []

    @app.websocket("/{kind}")
    async def handle(websocket: WebSocket, kind: str) -> None:
        await manager.connect(websocket)
        try:
            if kind == "text":
                await websocket.receive_text()
            await websocket.receive_bytes()
        except WebSocketDisconnect:
            left.append(kind)

    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/text") as client:
            await client.send(b"bytes")
            assert await client.closed() == (1003, "this message has no text")
        async with connect(f"{server.ws}/bytes") as client:
            await client.send("text")
            assert await client.closed() == (1003, "this message has no bytes")
        await until(lambda: left == ["text", "bytes"])
        assert manager.active_connections == []
    assert "ERROR" not in caplog.text


async def test_a_frame_over_the_servers_limit(ws: str) -> None:
    """Row 13: the server closes with 1009, the handler's loop ends, nobody else notices."""
    async with beside(ws, ws_max_size=1000) as bystander:
        async with connect(f"{bystander.server.ws}/ws") as client:
            await client.send("x" * 1001)
            assert (await client.closed())[0] == 1009
        await until(lambda: bystander.managed.outcomes == [None])
        await bystander.noticed_nothing()


async def test_a_send_before_accept(ws: str) -> None:
    """Row 16: the developer is told to connect first; the WebSocket can still be connected."""
    manager = ConnectionManager()
    app = FastAPI()
    errors: list[Exception] = []

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        for use in (
            manager.send_personal_message("early", websocket),
            websocket.send_text("early"),
        ):
            try:
                await use
            except (NotConnected, RuntimeError) as error:
                errors.append(error)
        await manager.connect(websocket)
        await manager.send_personal_message("in time", websocket)
        await websocket.receive_text()

    async with live_server(app, ws=ws) as server, connect(server.ws) as client:
        assert await client.receive() == "in time"
    first, second = errors
    assert isinstance(first, NotConnected)
    assert "connect(websocket)" in str(first)
    assert "websocket.accept" in str(second)


async def test_a_second_accept(ws: str) -> None:
    """Connecting twice is an AlreadyConnected; the first connection stays as it was."""
    manager = ConnectionManager()
    app = FastAPI()
    errors: list[Exception] = []

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        async with manager.connection(websocket) as connection:
            for again in (manager.connect(websocket), websocket.accept()):
                try:
                    await again
                except (AlreadyConnected, RuntimeError) as error:
                    errors.append(error)
            await echo(connection)

    async with live_server(app, ws=ws) as server, connect(server.ws) as client:
        assert await client.ask("fine") == "fine"
        assert len(manager.active_connections) == 1
    first, second = errors
    assert "registered already" in str(first)
    assert "websocket.accept" in str(second)


async def test_an_accept_by_the_app_itself(ws: str) -> None:
    """A WebSocket that the app accepted is taken as it is, unless the handshake comes too late."""
    manager = ConnectionManager()
    app = FastAPI()
    errors: list[Exception] = []

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await manager.connect(websocket, subprotocol="chat")
        except AlreadyConnected as error:
            errors.append(error)
        async with manager.connection(websocket) as connection:
            await echo(connection)

    async with live_server(app, ws=ws) as server, connect(server.ws) as client:
        assert await client.ask("fine") == "fine"
    assert "leave `await websocket.accept()` to the manager" in str(errors[0])


async def test_a_websocket_that_was_refused_before(ws: str) -> None:
    """Connecting after the app closed the handshake is an AlreadyConnected that says so."""
    manager = ConnectionManager()
    app = FastAPI()
    errors: list[Exception] = []

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.close()
        try:
            await manager.connect(websocket)
        except AlreadyConnected as error:
            errors.append(error)

    async with live_server(app, ws=ws) as server:
        await refusal(server.ws)
        await until(lambda: errors)
    assert "closed or refused before" in str(errors[0])


async def test_a_client_that_left_before_accept(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """Row 15: it is a WebSocketDisconnect, never a bare OSError, a traceback or a ghost."""
    manager = ConnectionManager()
    app = FastAPI()
    outcome: list[str] = []
    entered, release = asyncio.Event(), asyncio.Event()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        entered.set()
        await release.wait()
        try:
            await manager.connect(websocket)
            await websocket.receive_text()
        except WebSocketDisconnect as closed:
            outcome.append(str(closed.code))

    async with live_server(app, ws=ws) as server:
        async with DeadClient(server.ws, wait=False):
            await until(entered.is_set)
        await until(lambda: not server.connections)
        release.set()
        await until(lambda: outcome)
    assert outcome == ["1006"]
    assert manager.active_connections == []
    assert manager.statistics().connections == 0
    assert "ERROR" not in caplog.text


async def test_a_websocket_whose_end_was_read_before(ws: str) -> None:
    """A WebSocket whose disconnect the app received itself cannot be connected any more."""
    manager = ConnectionManager()
    app = FastAPI()
    outcome: list[str] = []

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        try:
            await manager.connect(websocket)
        except WebSocketDisconnect as closed:
            outcome.append(type(closed).__name__)

    async with live_server(app, ws=ws) as server:
        async with connect(server.ws):
            pass
        await until(lambda: outcome == ["ConnectionClosed"])


async def test_a_second_disconnect_and_an_unknown_websocket(ws: str) -> None:
    """`disconnect()` never raises; sending to a WebSocket that was never registered does."""
    async with beside(ws) as bystander:
        manager = bystander.managed.manager
        async with connect(f"{bystander.server.ws}/ws"):
            await until(lambda: len(manager.active_connections) == 2)
            websocket = manager.active_connections[1]
            manager.disconnect(websocket)
            manager.disconnect(websocket)
            unknown = WebSocket({"type": "websocket"}, websocket.receive, websocket.send)
            manager.disconnect(unknown)
            with pytest.raises(NotConnected):
                await manager.send_personal_message("hello?", unknown)
            await manager.broadcast("without", exclude=[unknown, manager.active_connections[0]])
        await bystander.noticed_nothing()


async def test_an_unknown_room(ws: str) -> None:
    """A room without members reaches nobody; leaving a room one is not in does nothing."""
    async with beside(ws) as bystander:
        manager = bystander.managed.manager
        await manager.broadcast("is anyone there?", room="nowhere")
        await manager.room("nowhere").broadcast("hello?")
        await bystander.managed.opened[0].leave("nowhere")
        assert manager.room("nowhere").members == []
        assert manager.statistics().rooms == 0
        await bystander.noticed_nothing()


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_bad_room_name_from_the_developer(name: str) -> None:
    """Empty, over-long or unprintable names are an InvalidRoomName wherever a room is named."""
    manager = ConnectionManager()
    with pytest.raises(InvalidRoomName):
        await manager.broadcast("x", room=name)
    with pytest.raises(InvalidRoomName):
        manager.room(name)
    with pytest.raises(InvalidUserId):
        await manager.send_to_user(name, "x")
    with pytest.raises(InvalidUserId):
        await manager.disconnect_user(name)


@pytest.mark.parametrize("name", ["a" * 255, "ö" * 127, "🦊 lounge", "a/b:c*", " "])
async def test_names_may_be_any_printable_text(name: str) -> None:
    """Up to 255 bytes of UTF-8, spaces and punctuation included."""
    assert ConnectionManager().room(name).name == name


@pytest.mark.parametrize("name", [7, None, b"bytes"])
async def test_a_name_that_is_no_string(name: Any) -> None:
    """It is a TypeError for the developer that says how to fix it."""
    manager = ConnectionManager()
    with pytest.raises(TypeError, match="a room name is a string"):
        manager.room(name)
    with pytest.raises(TypeError, match="a user id is a string"):
        await manager.send_to_user(name, "x")


async def test_a_string_where_a_collection_is_due(ws: str) -> None:
    """`rooms="tea"` and `exclude="id"` would name single letters: a TypeError with the fix."""
    async with beside(ws) as bystander:
        manager = bystander.managed.manager
        websocket = manager.active_connections[0]
        with pytest.raises(TypeError, match=r"rooms=\[name\]"):
            await manager.connect(websocket, rooms="tea")
        for single in ("tea", websocket, bystander.managed.opened[0]):
            with pytest.raises(TypeError, match=r"exclude=\[connection\]"):
                await manager.broadcast("x", exclude=single)  # type: ignore[arg-type]
        await bystander.noticed_nothing()


@pytest.mark.parametrize("query", ["room=", "room=" + "x" * 256, "room=%00", "user=", "user=%1b"])
async def test_a_bad_name_from_a_client(
    ws: str, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that names a room badly in its address is refused, without a traceback."""
    async with beside(ws) as bystander:
        assert (await refusal(f"{bystander.server.ws}/ws?{query}")).status == 403
        await bystander.noticed_nothing()
    assert "ERROR" not in caplog.text


async def test_a_bad_room_name_in_a_message(ws: str) -> None:
    """A client that joins a badly named room inside a handler is closed with 1008 and told so."""

    async def join(connection: Connection) -> None:
        await connection.join(await anext(connection.iter_text()))

    managed = ManagedApp(join)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await client.send("")
        assert await client.closed() == (1008, "invalid room name: it is empty")


async def test_a_message_that_cannot_be_encoded(ws: str) -> None:
    """The sender gets MessageNotEncodable before anyone gets anything."""
    async with beside(ws) as bystander:
        manager = bystander.managed.manager
        (connection,) = bystander.managed.opened
        uses: list[Callable[[object], Awaitable[None]]] = [
            manager.broadcast,
            manager.room("tea").broadcast,
            lambda message: manager.send_to_user("bystander", message),
            lambda message: manager.send_personal_message(message, connection.websocket),
            connection.send,
        ]
        for use in uses:
            with pytest.raises(MessageNotEncodable):
                await use(object())
        with pytest.raises(MessageNotEncodable):
            connection.send_nowait(float("nan"))
        with pytest.raises(MessageNotEncodable):
            await connection.websocket.send_text("\ud800")
        await bystander.noticed_nothing()


async def test_a_close_reason_of_200_bytes(ws: str) -> None:
    """Row 14: it is cut to 123 bytes on a character boundary; the close code arrives."""
    async with beside(ws) as bystander:
        manager = bystander.managed.manager
        async with connect(f"{bystander.server.ws}/ws?user=ann") as client:
            await until(lambda: len(bystander.managed.opened) == 2)
            await manager.disconnect_user("ann", code=4000, reason="ö" * 100)
            assert await client.closed() == (4000, "ö" * 61)
        async with connect(f"{bystander.server.ws}/ws") as client:
            await until(lambda: len(bystander.managed.opened) == 3)
            await bystander.managed.opened[2].websocket.close(4001, "x" * 200)
            assert await client.closed() == (4001, "x" * 123)
        await bystander.noticed_nothing()


@pytest.mark.parametrize("code", [1005, 1006, 1015, 999, 5000])
async def test_a_close_code_of_1006(ws: str, code: int) -> None:
    """Row 14: a code that no frame may carry is a ValueError; the connection stays open."""
    async with beside(ws) as bystander:
        (connection,) = bystander.managed.opened
        with pytest.raises(ValueError, match="cannot be sent"):
            await connection.close(code)
        with pytest.raises(ValueError, match="cannot be sent"):
            await bystander.managed.manager.disconnect_user("bystander", code=code)
        assert connection.closed is None
        await bystander.noticed_nothing()
