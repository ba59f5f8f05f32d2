"""The tutorial's chat, its class replaced by an import, on every server implementation."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from wshub import ConnectionManager
from wshub.testing import connect, live_server, until


class Chat:
    """
    The tutorial's third app, with a switch that keeps one handler busy.

    A message `wait` makes the handler wait for `release` before it goes on.
    """

    def __init__(self) -> None:
        self.manager = ConnectionManager()
        self.release = asyncio.Event()
        self.ended: list[int] = []
        self.app = FastAPI()
        self.app.add_api_websocket_route("/ws/{client_id}", self.handle)

    async def handle(self, websocket: WebSocket, client_id: int) -> None:
        manager = self.manager
        await manager.connect(websocket)
        try:
            while True:
                data = await websocket.receive_text()
                if data == "wait":
                    await self.release.wait()
                if data == "fail":
                    raise LookupError(data)
                await manager.send_personal_message(f"You wrote: {data}", websocket)
                await manager.broadcast(f"Client #{client_id} says: {data}")
        except WebSocketDisconnect:
            manager.disconnect(websocket)
            await manager.broadcast(f"Client #{client_id} left the chat")
        finally:
            self.ended.append(client_id)


@pytest.fixture
def chat() -> Chat:
    return Chat()


async def connected(chat: Chat, count: int) -> None:
    await until(lambda: len(chat.manager.active_connections) == count)


async def test_the_tutorial_chat_works(chat: Chat, ws: str) -> None:
    """Two people chat; one leaves and the other is told."""
    async with live_server(chat.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws/1") as first, connect(f"{server.ws}/ws/2") as second:
            await connected(chat, 2)
            await first.send("hello")
            assert await first.receive() == "You wrote: hello"
            assert await first.receive() == "Client #1 says: hello"
            assert await second.receive() == "Client #1 says: hello"
            await first.close()
            assert await second.receive() == "Client #1 left the chat"
        await until(lambda: chat.ended == [1, 2])
    assert chat.manager.active_connections == []


async def test_a_dead_peer_breaks_nobody_elses_broadcast(chat: Chat, ws: str) -> None:
    """
    Row 1: A is dead while its handler is busy; B broadcasts.

    With the tutorial's class B's broadcast raises, B is dropped, C gets nothing and A stays for
    ever. Here C gets it, B stays and A is gone.
    """
    async with (
        live_server(chat.app, ws=ws) as server,
        connect(f"{server.ws}/ws/1") as a,
        connect(f"{server.ws}/ws/2") as b,
        connect(f"{server.ws}/ws/3") as c,
    ):
        await connected(chat, 3)
        await a.send("wait")
        await until(lambda: chat.manager.statistics().received == 1)
        a.reset()
        for word in ("one", "two"):
            assert await b.ask(word) == f"You wrote: {word}"
            assert await b.receive() == f"Client #2 says: {word}"
            assert await c.receive() == f"Client #2 says: {word}"
        await connected(chat, 2)
        async with connect(f"{server.ws}/ws/4") as late:
            assert await late.ask("new") == "You wrote: new"
            assert await b.receive() == "Client #4 says: new"
        assert await b.receive() == "Client #4 left the chat"
        assert chat.ended == [4]
        chat.release.set()
        assert await b.receive() == "Client #1 left the chat"
        assert chat.ended == [4, 1]


async def test_leaving_during_a_broadcast_skips_nobody(chat: Chat, ws: str) -> None:
    """Row 3: twenty leave in the middle of a broadcast; the tutorial skips twenty survivors."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(live_server(chat.app, ws=ws))
        clients = [
            await stack.enter_async_context(connect(f"{server.ws}/ws/{number}"))
            for number in range(41)
        ]
        await connected(chat, 41)
        leaving = chat.manager.active_connections[1:21]
        for websocket in leaving:
            await chat.manager.broadcast("all of you")
            chat.manager.disconnect(websocket)
        for client in (clients[0], *clients[21:]):
            assert [await client.receive() for _ in leaving] == ["all of you"] * 20


async def test_disconnecting_twice_is_fine(chat: Chat, ws: str) -> None:
    """Row 4: `list.remove(x)` raises ValueError in the tutorial's class."""
    async with live_server(chat.app, ws=ws) as server, connect(f"{server.ws}/ws/1"):
        await connected(chat, 1)
        (websocket,) = chat.manager.active_connections
        chat.manager.disconnect(websocket)
        chat.manager.disconnect(websocket)
        assert chat.manager.active_connections == []


async def test_a_disconnected_websocket_stays_usable(chat: Chat, ws: str) -> None:
    """`disconnect()` only unregisters, as in the tutorial: personal messages still arrive."""
    async with live_server(chat.app, ws=ws) as server, connect(f"{server.ws}/ws/1") as client:
        await connected(chat, 1)
        (websocket,) = chat.manager.active_connections
        chat.manager.disconnect(websocket)
        await chat.manager.broadcast("not for you")
        await chat.manager.send_personal_message("for you", websocket)
        await websocket.send_text("past the manager")
        assert await client.receive() == "for you"
        assert await client.receive() == "past the manager"


async def test_a_handler_that_fails_leaves_no_ghost(
    chat: Chat, ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Need 27: the tutorial's class keeps a connection whose handler died of another error."""
    async with live_server(chat.app, ws=ws) as server, connect(f"{server.ws}/ws/1") as client:
        await connected(chat, 1)
        await client.send("fail")
        assert (await client.closed())[0] == 1006
        await connected(chat, 0)
    assert "LookupError: fail" in caplog.text


async def test_sending_to_someone_who_left_is_a_disconnect(chat: Chat, ws: str) -> None:
    """Rows 6 and 7: every way to use a dead WebSocket ends in WebSocketDisconnect, or nothing."""
    async with live_server(chat.app, ws=ws) as server, connect(f"{server.ws}/ws/1") as client:
        await connected(chat, 1)
        (websocket,) = chat.manager.active_connections
        await client.send("wait")
        await until(lambda: chat.manager.statistics().received == 1)
        client.reset()
        await connected(chat, 0)
        for _ in range(2):
            with pytest.raises(WebSocketDisconnect):
                await chat.manager.send_personal_message("hello?", websocket)
            with pytest.raises(WebSocketDisconnect):
                await websocket.send_text("hello?")
        await websocket.close()
        chat.release.set()
        await until(lambda: chat.ended == [1])


async def test_a_busy_handler_does_not_hide_a_disconnect(chat: Chat, ws: str) -> None:
    """Needs 7 and 8: the peer's leaving is seen while the handler receives nothing."""
    async with live_server(chat.app, ws=ws) as server, connect(f"{server.ws}/ws/1") as client:
        await connected(chat, 1)
        for message in ("wait", "one", "two"):
            await client.send(message)
        await until(lambda: chat.manager.statistics().received == 3)
        await client.close()
        await connected(chat, 0)
        chat.release.set()
        await until(lambda: chat.ended == [1])
