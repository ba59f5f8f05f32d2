"""What each example promises to any client, over real servers."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

import examples
from examples.auth.app import app as auth_app
from examples.chat.app import app as chat_app
from examples.chat.app import manager as chat_manager
from examples.echo.app import app as echo_app
from examples.items.app import app as items_app
from examples.rooms.app import app as rooms_app
from examples.rooms.presence import ALWAYS_OPEN, MOST_ROOMS, people, rooms
from wshub.testing import connect, live_server, refusal, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.examples.conftest import Visitor

    Visit = Callable[..., AbstractAsyncContextManager[Visitor]]

APPS = {
    "auth": auth_app,
    "echo": echo_app,
    "items": items_app,
    "chat": chat_app,
    "rooms": rooms_app,
}
FOLDER = Path(examples.__file__).parent


@pytest.mark.parametrize("name", APPS)
async def test_page_is_served(name: str) -> None:
    """Each example answers GET / with its page."""
    async with live_server(APPS[name]) as server, httpx.AsyncClient() as client:
        answer = await client.get(f"{server.http}/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text == (FOLDER / name / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(FOLDER.rglob("*.html")), ids=lambda path: path.parent.name)
def test_page_is_bound_to_no_place(page: Path) -> None:
    """No page names a host: addresses come from where the page itself was loaded."""
    assert not re.search(r"(https?|wss?)://|localhost", page.read_text(encoding="utf-8"))


# --- auth


async def test_auth_from_log_in_to_log_out(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """A password begins a session, a ticket connects, a token refreshes, the log-out closes."""
    caplog.set_level("INFO")
    async with (
        live_server(auth_app, ws=ws, access_log=False) as server,
        httpx.AsyncClient(base_url=server.http, headers={"Origin": server.http}) as http,
    ):
        for name, password in (("ana", "coffee"), ("nobody", "tea")):
            wrong = {"name": name, "password": password}
            assert (await http.post("/login", json=wrong)).status_code == 401
            assert (await http.post("/ticket")).status_code == 401
        login = {"name": "ana", "password": "tea"}
        evil = {"Origin": "https://evil.example"}
        assert (await http.post("/login", json=login, headers=evil)).status_code == 403
        assert (await http.post("/login", json=login)).json() == "ana"
        assert "HttpOnly" in str((await http.post("/login", json=login)).headers)
        assert (await http.post("/ticket", headers=evil)).status_code == 403
        ticket = (await http.post("/ticket")).json()
        async with connect(f"{server.ws}/ws?ticket={ticket}", origin=server.http) as client:
            welcome = {"type": "welcome", "name": "ana", "lifetime": 60}
            assert await client.receive_json() == welcome
            token = (await http.post("/token")).json()
            await client.send_json({"type": "refresh", "token": token})
            await client.send_json({"type": "say", "text": "hello"})
            assert await client.receive_json() == {"type": "said", "name": "ana", "text": "hello"}
            session = http.cookies["session"]
            await http.post("/logout")
            assert await client.closed() == (3000, "logged out")
        async with connect(f"{server.ws}/ws?ticket={ticket}", origin=server.http) as client:
            assert await client.closed() == (3000, "invalid credential")
        assert (await http.post("/ticket")).status_code == 401
        http.cookies.set("session", session)  # a copy that somebody kept
        assert (await http.post("/ticket")).status_code == 401
    assert ticket not in caplog.text


# --- echo


async def test_echo_of_text_and_bytes(ws: str) -> None:
    """Text comes back with the tutorial's words in front, bytes as the bytes they were."""
    async with live_server(echo_app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask("héllo") == "Message text was: héllo"
        assert await client.ask(b"\x00\xff") == b"\x00\xff"
        assert await client.ask("") == "Message text was: "


@pytest.mark.parametrize("value", ["text", 1.5, None, [1, {"a": "ü"}], {"b": []}])
async def test_echo_of_json(value: Any) -> None:
    """Any JSON value comes back inside a JSON object."""
    async with live_server(echo_app) as server, connect(f"{server.ws}/ws/json") as client:
        answer = await client.ask(json.dumps(value))
    assert json.loads(answer) == {"Message JSON was": value}


@pytest.mark.parametrize(("message", "code"), [("{", 1007), ("NaN", 1007), (b"{}", 1003)])
async def test_echo_refuses_what_is_not_json(message: str | bytes, code: int, ws: str) -> None:
    """Broken JSON ends that one connection with 1007 and binary with 1003; others go on."""
    async with (
        live_server(echo_app, ws=ws) as server,
        connect(f"{server.ws}/ws/json") as good,
        connect(f"{server.ws}/ws/json") as bad,
    ):
        await bad.send(message)
        assert (await bad.closed())[0] == code
        assert json.loads(await good.ask("1")) == {"Message JSON was": 1}


# --- items


@pytest.mark.parametrize("path", ["items/foo/ws", "default-style/items/foo/ws"])
async def test_items_with_a_token(path: str, ws: str) -> None:
    """The tutorial's three lines answer a message, in both styles of declaring it."""
    async with (
        live_server(items_app, ws=ws) as server,
        connect(f"{server.ws}/{path}?token=secret&q=7") as client,
    ):
        assert await client.ask("hi") == "Session cookie or query token value is: secret"
        assert await client.receive() == "Query parameter q is: 7"
        assert await client.receive() == "Message text was: hi, for item ID: foo"


async def test_items_prefers_the_cookie_and_leaves_out_q() -> None:
    """The cookie wins over the token, and without q there is no line about it."""
    async with live_server(items_app) as server:
        headers = {"Cookie": "session=from-cookie"}
        url = f"{server.ws}/items/bar/ws?token=from-query"
        async with connect(url, additional_headers=headers) as client:
            assert await client.ask("x") == "Session cookie or query token value is: from-cookie"
            assert await client.receive() == "Message text was: x, for item ID: bar"


@pytest.mark.parametrize("path", ["items/foo/ws", "default-style/items/foo/ws"])
async def test_items_without_credentials(path: str, ws: str) -> None:
    """Without cookie and token the connection closes with 1008, where scripts can see it."""
    async with live_server(items_app, ws=ws) as server, connect(f"{server.ws}/{path}") as client:
        assert (await client.closed())[0] == 1008


# --- chat


async def test_chat_tells_everyone(ws: str) -> None:
    """The tutorial's lines: to the writer, to everyone, and to the others when one leaves."""
    async with live_server(chat_app, ws=ws) as server, connect(f"{server.ws}/ws/7") as seven:
        async with connect(f"{server.ws}/ws/8") as eight:
            await until(lambda: len(chat_manager.active_connections) == 2)
            assert await seven.ask("hello") == "You wrote: hello"
            assert await seven.receive() == "Client #7 says: hello"
            assert await eight.receive() == "Client #7 says: hello"
        assert await seven.receive() == "Client #8 left the chat"


async def test_chat_outlives_hostile_clients(ws: str) -> None:
    """A reset, binary and a client id that is none hurt only the client that sent them."""
    async with live_server(chat_app, ws=ws) as server, connect(f"{server.ws}/ws/1") as good:
        assert (await refusal(f"{server.ws}/ws/seven")).status == 403
        async with connect(f"{server.ws}/ws/2") as vanishing:
            await until(lambda: len(chat_manager.active_connections) == 2)
            vanishing.reset()
            assert await good.receive() == "Client #2 left the chat"
        async with connect(f"{server.ws}/ws/3") as binary:
            await binary.send(b"\x00")
            assert (await binary.closed())[0] == 1003
            assert await good.receive() == "Client #3 left the chat"
        assert await good.ask("still here") == "You wrote: still here"


# --- rooms


@pytest.fixture(autouse=True)
def empty_rooms() -> Any:
    """Rooms and people are gone when the last of them has left."""
    yield
    assert people == {}
    assert rooms == dict.fromkeys(ALWAYS_OPEN, 0)


async def test_rooms_headers() -> None:
    """The page may load nothing from elsewhere, and its files are there."""
    async with live_server(rooms_app) as server, httpx.AsyncClient(base_url=server.http) as client:
        page = await client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        found = re.findall(r'(?:href|src)="(static/[^"]+)"', page.text)
        assert found
        assert {(await client.get(f"/{file}")).status_code for file in found} == {200}


async def test_rooms_say(visit: Visit, ws: str) -> None:
    """A message reaches those in its room, its writer too, and nobody else."""
    async with (
        live_server(rooms_app, ws=ws) as server,
        visit(server, "Ana", "lobby", "coffee") as ana,
        visit(server, "Ben", "lobby") as ben,
        visit(server, "Cem", "ideas") as cem,
    ):
        await ana.sees("lobby", "Ana", "Ben")
        await ana.say("say", ref="1", room="lobby", text="  hi <b>all</b> ")
        for visitor in (ana, ben):
            said = await visitor.hear("said")
            assert (said["ref"], said["text"]) == ("1", "hi <b>all</b>")
            assert said["sender"] == {"id": ana.id, "name": "Ana", "tabs": 1}
        await ana.say("say", ref="2", room="coffee", text="only me")
        assert (await ana.hear("said"))["ref"] == "2"
        await ben.say("tell", ref="3", to=cem.id, text="anything?")
        assert (await cem.hear("told"))["ref"] == "3"


async def test_rooms_people_have_one_entry(visit: Visit) -> None:
    """A person is listed once with two tabs, and leaves with the last of them."""
    async with (
        live_server(rooms_app) as server,
        visit(server, "Ana", "lobby") as ana,
    ):
        async with visit(server, "Ben", "lobby") as first:
            async with visit(server, "Ben", "lobby") as second:
                assert first.id == second.id
                await second.sees("lobby", "Ana", "Ben", tabs=3)
                await first.sees("lobby", "Ana", "Ben", tabs=3)
            await first.sees("lobby", "Ana", "Ben", tabs=2)
        await ana.sees("lobby", "Ana")


async def test_rooms_private_message(visit: Visit, ws: str) -> None:
    """A private message reaches all tabs of both people, and no third person."""
    async with (
        live_server(rooms_app, ws=ws) as server,
        visit(server, "Ana", "lobby") as ana,
        visit(server, "Ana", "lobby") as ana_too,
        visit(server, "Ben", "lobby") as ben,
        visit(server, "Ben", "coffee") as ben_too,
        visit(server, "Eve", "lobby") as eve,
    ):
        await ana.sees("lobby", "Ana", "Ben", "Eve")
        await ana.say("tell", ref="1", to=ben.id, text="psst")
        for visitor in (ana, ana_too, ben, ben_too):
            told = await visitor.hear("told")
            assert (told["text"], told["sender"]["name"], told["to"]["name"]) == (
                "psst", "Ana", "Ben",
            )  # fmt: skip
        await ana.say("say", ref="2", room="lobby", text="aloud")
        heard = [json.loads(await eve.client.receive())]
        while heard[-1]["type"] != "said":
            heard.append(json.loads(await eve.client.receive()))
        assert "told" not in {message["type"] for message in heard}


async def test_rooms_tell_when_nobody_gets_it(visit: Visit) -> None:
    """The writer learns of a message to somebody who left, or for a room not entered."""
    async with live_server(rooms_app) as server, visit(server, "Ana", "lobby") as ana:
        async with visit(server, "Ben", "lobby") as ben:
            gone = ben.id
        await ana.sees("lobby", "Ana")
        await ana.say("tell", ref="1", to=gone, text="hello?")
        await ana.hear("undelivered", ref="1")
        await ana.say("say", ref="2", room="coffee", text="hello?")
        await ana.hear("undelivered", ref="2")


async def test_rooms_enter_and_leave(visit: Visit) -> None:
    """Entering a room makes it exist, its members see who comes and goes, then it is gone."""
    async with (
        live_server(rooms_app) as server,
        visit(server, "Ana", "lobby") as ana,
        visit(server, "Ben", "lobby") as ben,
    ):
        await ana.say("enter", room="größe_2")
        await ana.sees("größe_2", "Ana")
        while "größe_2" not in (await ben.hear("rooms"))["rooms"]:
            pass
        await ben.say("enter", room="größe_2")
        await ana.sees("größe_2", "Ana", "Ben")
        await ben.say("leave", room="größe_2")
        await ana.sees("größe_2", "Ana")
        await ana.say("leave", room="größe_2")
        while "größe_2" in (await ben.hear("rooms"))["rooms"]:
            pass


async def test_rooms_rename(visit: Visit) -> None:
    """A new name holds in every tab and every room of that person."""
    async with (
        live_server(rooms_app) as server,
        visit(server, "Ana", "lobby") as ana,
        visit(server, "Ana", "coffee") as ana_too,
        visit(server, "Ben", "lobby") as ben,
    ):
        await ana.say("rename", name="Anna")
        await ben.sees("lobby", "Anna", "Ben")
        await ana_too.sees("coffee", "Anna")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param("{", 1007, id="broken"),
        pytest.param("[]", 1007, id="no-object"),
        pytest.param('{"type": "shout"}', 1007, id="unknown-type"),
        pytest.param('{"type": "say", "ref": "1", "room": "lobby", "text": " "}', 1007, id="empty"),
        pytest.param(json.dumps({"type": "rename", "name": "x" * 33}), 1007, id="long-name"),
        pytest.param('{"type": "rename", "name": "a\\u0007"}', 1007, id="control-character"),
        pytest.param('{"type": "rename", "name": "\\ud800"}', 1007, id="lone-surrogate"),
        pytest.param("[" * 5000, 1007, id="deep"),
        pytest.param('{"type": "enter", "room": "a b"}', 1007, id="bad-room"),
        pytest.param(b'{"type": "leave", "room": "lobby"}', 1003, id="binary"),
    ],
)
async def test_rooms_bad_message(visit: Visit, message: str | bytes, code: int) -> None:
    """A message that no page would send ends that tab, and the others see it leave."""
    async with live_server(rooms_app) as server, visit(server, "Ana", "lobby") as ana:
        async with visit(server, "Mal", "lobby") as mal:
            await ana.sees("lobby", "Ana", "Mal")
            await mal.client.send(message)
            assert (await mal.client.closed())[0] == code
            await ana.sees("lobby", "Ana")
        await ana.say("say", ref="1", room="lobby", text="fine")
        await ana.hear("said", ref="1")


async def test_rooms_limit(visit: Visit) -> None:
    """One tab may be in so many rooms and no more."""
    many = [f"room-{number}" for number in range(MOST_ROOMS)]
    async with live_server(rooms_app) as server, visit(server, "Mal", *many) as mal:
        await mal.say("enter", room=many[0])
        await mal.say("enter", room="one-more")
        with pytest.raises(ConnectionClosed):
            await mal.hear("never")
        assert await mal.client.closed() == (1008, "too many rooms")


async def test_rooms_flood(visit: Visit) -> None:
    """A tab that sends far more than anyone types is closed, and the others go on."""
    async with live_server(rooms_app) as server, visit(server, "Ana", "lobby") as ana:
        async with visit(server, "Mal", "lobby") as mal:
            with suppress(ConnectionClosed):
                for number in range(200):
                    await mal.say("say", ref=str(number), room="lobby", text="buy!")
            assert await mal.client.closed() == (1008, "too many messages")
        await ana.say("say", ref="1", room="lobby", text="fine")
        await ana.hear("said", ref="1", text="fine")


@pytest.mark.parametrize(
    "query",
    [
        "name=Mal&key=0123456789abcdef",
        "name=&key=0123456789abcdef&room=lobby",
        "name=Mal&key=short&room=lobby",
        "name=Mal&key=0123456789abcdef&room=a/b",
    ],
)
async def test_rooms_bad_address(query: str) -> None:
    """Bad parameters close with 1008 and say which one it was."""
    async with live_server(rooms_app) as server, connect(f"{server.ws}/ws?{query}") as client:
        code, reason = await client.closed()
    assert code == 1008
    assert reason
    assert reason.startswith("query.")
