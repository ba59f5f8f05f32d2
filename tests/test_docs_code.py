"""The apps and the tests on the pages of the documentation do what the pages say."""

from __future__ import annotations

import asyncio
import contextlib
import re

import httpx
import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.exceptions import WebSocketException
from starlette.testclient import TestClient
from websockets.exceptions import ConnectionClosed

from tests.documentation import DOCS, INCLUDE, find_tests, run, table_of
from wshub import ConnectionManager, exceptions
from wshub.testing import FaultySink, connect, live_server, refusal, until, wait_until
from wshub.testing.deadline import DEADLINE


@pytest.mark.parametrize("name", ["README.md", "docs/how-to/rooms.md"])
async def test_the_lines_that_matter(name: str, ws: str) -> None:
    """They are a chat with rooms: a message reaches the others in its room, and nobody else."""
    page = run(name)
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        connect(f"{server.ws}/rooms/tea") as ann,
        connect(f"{server.ws}/rooms/tea") as ben,
        connect(f"{server.ws}/rooms/milk") as cy,
        connect(f"{server.ws}/rooms/milk") as dan,
    ):
        await until(lambda: page.manager.statistics().connections == 4)
        await ann.send("for tea")
        assert await ben.receive() == "for tea"
        await ben.send(b"bytes for tea")
        assert await ann.receive() == b"bytes for tea"
        await cy.send("for milk")
        assert await dan.receive() == "for milk"


def test_the_home_page_shows_the_same_lines() -> None:
    """The home page includes them from the README."""
    assert INCLUDE.findall((DOCS / "index.md").read_text()) == [("README.md", "app")]


async def test_an_apps_own_lifespan_may_enter_the_managers() -> None:
    """The lifespan of the tutorial's first step starts and stops with the app."""
    page = run("docs/tutorial/1-echo.md")
    async with live_server(page.app, lifespan="on") as server, httpx.AsyncClient() as client:
        assert (await client.get(server.http)).status_code == 404


async def test_the_shorter_chat_is_the_same_chat(ws: str) -> None:
    """The tutorial's chat, written with `connection()`, says what the original says."""
    page = run("docs/tutorial/3-chat.md")
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        connect(f"{server.ws}/ws/1") as first,
        connect(f"{server.ws}/ws/2") as second,
    ):
        await until(lambda: len(page.manager.active_connections) == 2)
        assert await first.ask("hello") == "You wrote: hello"
        assert await first.receive() == "Client #1 says: hello"
        assert await second.receive() == "Client #1 says: hello"
        await first.close()
        assert await second.receive() == "Client #1 left the chat"


async def test_how_each_style_ends_is_as_the_table_says(ws: str) -> None:
    """The codes of the table that compares `connect()` with `connection()`."""
    manager = ConnectionManager()
    app = FastAPI()

    async def end(websocket: WebSocket) -> None:
        how = await websocket.receive_text()
        if how == "the handler fails":
            raise LookupError(how)
        if how == "it raises a `WebSocketException`":
            raise WebSocketException(4321)

    @app.websocket("/connect")
    async def registered(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        await end(websocket)

    @app.websocket("/connection")
    async def connection(websocket: WebSocket) -> None:
        async with manager.connection(websocket):
            await end(websocket)

    rows = table_of("docs/tutorial/3-chat.md", "how it ends")
    async with live_server(app, ws=ws) as server:
        for how, *cells in rows[:3]:
            for path, cell in zip(("connect", "connection"), cells, strict=True):
                async with connect(f"{server.ws}/{path}") as client:
                    await client.send(how)
                    expected = cell.replace("its code", "4321").split()[-1]
                    assert str((await client.closed())[0]) == expected, (how, path)


async def test_who_may_enter_a_room() -> None:
    """On the page about rooms, members enter and others are refused."""
    page = run("docs/how-to/rooms.md")
    async with live_server(page.app) as server:
        async with connect(f"{server.ws}/members-only/board?token=ana") as ana:
            assert await ana.ask("hello") == "hello"
        for path in ("board?token=ben", "attic?token=ana", "board"):
            assert (await refusal(f"{server.ws}/members-only/{path}")).status == 403


async def test_sending_from_other_places() -> None:
    """Routes of both kinds reach users and rooms, and a spawned task sends by itself."""
    page = run("docs/how-to/rooms.md")
    async with (
        live_server(page.app) as server,
        httpx.AsyncClient(base_url=server.http) as http,
        connect(f"{server.ws}/notifications/ana") as tab,
        connect(f"{server.ws}/notifications/ana") as other_tab,
        connect(f"{server.ws}/rooms/tea") as guest,
        connect(f"{server.ws}/clock") as clock,
    ):
        await until(lambda: page.manager.statistics().connections == 4)
        await http.post("/notify/ana", params={"text": "hello"})
        assert await tab.receive() == await other_tab.receive() == '{"text":"hello"}'
        await http.post("/announce/tea", params={"text": "closing"})
        assert await guest.receive() == '{"text":"closing"}'
        assert str(await clock.receive()).startswith('{"now":"20')


async def test_rejecting_as_the_client_understands(ws: str) -> None:
    """Before accept browsers get a close frame and others an HTTP answer; afterwards a code."""
    page = run("docs/how-to/rejecting.md")
    origin = "https://chat.example.com"
    async with live_server(page.app, ws=ws) as server:
        assert (await refusal(f"{server.ws}/rooms/board")).status == 403
        assert (await refusal(f"{server.ws}/rooms/tea?page=x")).status == 422
        async with connect(f"{server.ws}/rooms/board", origin=origin) as client:
            assert await client.closed() == (3003, "members only")
        async with connect(f"{server.ws}/rooms/tea?page=x", origin=origin) as client:
            assert (await client.closed())[0] == 1008
        async with connect(f"{server.ws}/rooms/tea") as client:
            assert await client.ask("hello") == "hello"
            await client.send("spam")
            assert await client.closed() == (3003, "not here")
    assert page.expired.status == 410


@pytest.mark.parametrize("name", find_tests("docs/how-to/testing.md", "def"))
def test_a_test_without_an_event_loop(name: str) -> None:
    """The synchronous tests of the page about testing pass."""
    getattr(run("docs/how-to/testing.md"), name)()


@pytest.mark.parametrize("name", find_tests("docs/how-to/testing.md", "async def"))
async def test_a_test_with_a_real_server(name: str) -> None:
    """The other tests of the page about testing pass."""
    await getattr(run("docs/how-to/testing.md"), name)()


async def _say_goodbye(websocket: WebSocket, heard: list[str]) -> None:
    """Send after the client has left, then go on for a while."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.receive_text()
    try:
        await websocket.send_text("too late")
        heard.append("sent")
    except (WebSocketDisconnect, RuntimeError):
        heard.append("not sent")
    try:
        await asyncio.sleep(0.1)
        heard.append("ran to its end")
    except asyncio.CancelledError:
        heard.append("cancelled")
        raise


def _liar(heard: list[str]) -> FastAPI:
    app = FastAPI()

    @app.websocket("/goodbye")
    async def goodbye(websocket: WebSocket) -> None:
        await _say_goodbye(websocket, heard)

    @app.websocket("/refuse")
    async def refuse(websocket: WebSocket) -> None:
        raise exceptions.unauthorized()

    return app


def test_what_testclient_says() -> None:
    """Sends to a client that left succeed, its handler is cancelled, rejections show their code."""
    heard: list[str] = []
    client = TestClient(_liar(heard))
    with client.websocket_connect("/goodbye") as session:
        session.close()
        wait_until(lambda: heard)
    assert heard == ["sent", "cancelled"]
    with pytest.raises(WebSocketDisconnect) as refused:
        client.websocket_connect("/refuse").__enter__()
    assert refused.value.code == 3000


async def test_what_a_real_server_says_instead(ws: str) -> None:
    """Such sends fail, the handler runs to its end, and a rejection without a handler is 403."""
    heard: list[str] = []
    async with live_server(_liar(heard), ws=ws) as server:
        async with connect(f"{server.ws}/goodbye"):
            pass
        await until(lambda: heard == ["not sent", "ran to its end"])
        assert (await refusal(f"{server.ws}/refuse")).status == 403


async def test_statistics_as_json() -> None:
    """The endpoint of the page about deploying shows all figures."""
    page = run("docs/how-to/deploying.md")
    async with live_server(page.app) as server, httpx.AsyncClient() as http:
        shown = (await http.get(f"{server.http}/internal/websockets")).json()
    assert shown == ConnectionManager().statistics()._asdict()


async def test_clients_beyond_the_limits_of_the_page(ws: str) -> None:
    """One user has ten connections and no more; a client that floods is closed."""
    page = run("docs/how-to/limits.md")
    async with (
        live_server(page.app, ws=ws) as server,
        contextlib.AsyncExitStack() as clients,
        connect(f"{server.ws}/rooms/tea") as flooder,
    ):
        url = f"{server.ws}/rooms/tea?user=ana"
        for _ in range(10):
            await clients.enter_async_context(connect(url))
        assert (await refusal(url)).status == 429
        with contextlib.suppress(ConnectionClosed):
            for number in range(200):
                await flooder.send(str(number))
        assert await flooder.closed() == (1008, "too many messages")


async def test_who_is_warned_is_told_to_slow_down() -> None:
    """The hook on the page about limits sends a message to a client that is warned."""
    page = run("docs/how-to/limits.md")
    sink = FaultySink()
    async with page.polite.connection(sink.websocket) as connection:
        for _ in range(51):
            sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
            await connection.receive()
        assert sink.sent[-1]["text"] == '{"type":"slow down"}'
    assert [event["type"] for event in sink.sent[1:]] == ["websocket.send", "websocket.close"]


async def test_the_route_that_drains(ws: str) -> None:
    """On the page about deploying it is for this machine only, and tells clients when to return."""
    page = run("docs/how-to/deploying.md")
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        httpx.AsyncClient(base_url=server.http) as http,
        connect(f"{server.ws}/uploads") as client,
    ):
        elsewhere = {"X-Forwarded-For": "192.0.2.7"}  # which uvicorn believes from this machine
        assert (await http.post("/internal/drain", headers=elsewhere)).status_code == 404
        await client.send(b"part")
        await until(lambda: page.manager.statistics().received == 1)
        draining = asyncio.create_task(http.post("/internal/drain", timeout=DEADLINE))
        code, reason = await client.closed()
        assert code == 1012
        assert re.search(r"retry-after=[\d.]+$", reason)
        assert (await draining).status_code == 204
        assert (await refusal(f"{server.ws}/uploads")).status == 403
        await until(lambda: page.saved == [b"part"])


async def test_the_hook_of_the_page_about_deploying() -> None:
    """It notes who is cut off, and who is refused."""
    page = run("docs/how-to/deploying.md")
    sink = FaultySink()
    async with page.observed.connection(sink.websocket, user="ana"):
        sink.fault = OSError("gone")
        await page.observed.broadcast("x")
    with pytest.raises(exceptions.LimitExceeded):
        await page.observed.connect(FaultySink().websocket, rooms=map(str, range(1025)))
    assert page.cut_off == ["ana: write_failed"]
    assert page.turned_away == ["rooms_per_connection"]
