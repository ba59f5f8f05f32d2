"""The code on the pages about authentication and security does what the pages say."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import jwt
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from websockets.exceptions import InvalidStatus

from tests.documentation import ROOT, run, table_of
from wshub.auth import OriginPolicy, authenticate, query
from wshub.exceptions import forbidden
from wshub.testing import connect, live_server, refusal, until

if TYPE_CHECKING:
    import pytest

    from wshub.testing import LiveServer

COOKIE = {"Cookie": "session=c2Vzc2lvbg"}
KEY = "at least 32 bytes, and out of the environment"


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ana", "exp": time.time() + 60, **claims}, KEY)


async def test_one_dependency_for_http_and_websocket(ws: str) -> None:
    """On the page about authentication a session opens both kinds of routes, nothing else does."""
    page = run("docs/how-to/auth.md")
    async with (
        live_server(page.app, ws=ws, lifespan="on") as server,
        httpx.AsyncClient(base_url=server.http, headers=COOKIE) as http,
    ):
        url, page_of_ours = f"{server.ws}/ws", server.http
        assert (await http.get("/me")).json() == "ana"
        strangers: list[dict[str, str]] = [{}, {"Cookie": "session=wrong"}]
        for bad in strangers:
            http.headers["Cookie"] = bad.get("Cookie", "")
            assert (await http.get("/me")).status_code == 401
            told = await refusal(url, additional_headers=bad, origin=page_of_ours)
            assert told.status == 401
        http.headers["Cookie"] = COOKIE["Cookie"]
        told = await refusal(url, additional_headers=COOKIE, origin="https://x.example")
        assert told.status == 403
        async with (
            connect(url, additional_headers=COOKIE, origin=page_of_ours) as tab,
            connect(url, additional_headers=COOKIE, origin=page_of_ours) as other_tab,
        ):
            await until(lambda: page.manager.statistics().connections == 2)
            assert await tab.ask("hello") == await other_tab.receive() == "hello"
            await http.post("/logout")
            assert await tab.closed() == await other_tab.closed() == (3000, "logged out")
        assert (await http.get("/me")).status_code == 401


async def test_logging_out_everywhere() -> None:
    """All sessions of the user are gone, and their connections."""
    page = run("docs/how-to/auth.md")
    async with (
        live_server(page.app) as server,
        httpx.AsyncClient(base_url=server.http, headers=COOKIE) as http,
        connect(f"{server.ws}/ws", additional_headers=COOKIE, origin=server.http) as tab,
    ):
        assert await tab.ask("hello") == "hello"
        assert (await http.get("/admin")).status_code == 403
        await http.post("/logout-everywhere")
        assert await tab.closed() == (3000, "logged out")
        assert page.SESSIONS == {}


async def test_tickets_and_first_messages(ws: str) -> None:
    """The other two routes of the page let in who has a ticket, or says a token."""
    page = run("docs/how-to/auth.md")
    async with (
        live_server(page.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http, headers=COOKIE) as http,
    ):
        ticket = (await http.post("/ticket", headers={"Origin": server.http})).json()
        url = f"{server.ws}/with-ticket?ticket={ticket}"
        async with connect(url, origin=server.http) as client:
            assert await client.ask("hello") == "hello"
        assert (await refusal(url, origin=server.http)).status == 401
        async with connect(f"{server.ws}/first-message") as client:
            await client.send("c2Vzc2lvbg")
            assert await client.ask("hello") == "hello"
        async with connect(f"{server.ws}/first-message") as client:
            await client.send("wrong")
            assert await client.closed() == (3000, "invalid credential")


async def test_uvicorn_logs_tokens_in_urls(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without an access log, too, but not at level warning, and not through the filter."""
    app = FastAPI()

    @app.websocket("/ws")
    async def refuse(websocket: WebSocket) -> None:
        raise forbidden()

    async with live_server(app, ws=ws, access_log=False) as server:
        for level, page, expected in (
            ("INFO", None, ["token=abc"]),
            ("WARNING", None, []),
            ("INFO", "docs/how-to/auth.md", []),
        ):
            if page:
                run(page)
            caplog.clear()
            with caplog.at_level(level, "uvicorn"):
                await refusal(f"{server.ws}/ws?token=abc")
            assert re.findall(r"token=\w+", caplog.text) == expected


async def test_tokens_that_are_refreshed(ws: str) -> None:
    """On the page about JWTs a newer token keeps the connection, a bad one ends it."""
    page = run("docs/how-to/jwt.md")
    claims = {"aud": "chat", "iss": "https://id.example.com"}
    async with live_server(page.app, ws=ws) as server:
        url = f"{server.ws}/ws"
        offered = ["wshub", f"bearer.{token(**claims)}"]
        async with connect(url, subprotocols=offered) as client:
            await client.send_json({"type": "refresh", "token": token(**claims)})
            await client.send_json({"type": "say", "text": "hello"})
            assert await client.receive_json() == {"name": "ana", "text": "hello"}
            await client.send_json({"type": "refresh", "token": token()})
            assert await client.closed() == (3000, "invalid credential")
        async with connect(
            url, additional_headers={"Authorization": f"Bearer {token()}"}
        ) as client:
            assert await client.closed() == (3000, "invalid credential")


async def test_a_password_flow(ws: str) -> None:
    """On the page about OAuth2 a form gives a token, for routes and for WebSockets."""
    page = run("docs/how-to/oauth2.md")
    async with (
        live_server(page.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        for name, password in (("ana", "wrong"), ("nobody", "tea")):
            form = {"username": name, "password": password}
            assert (await http.post("/token", data=form)).status_code == 401
        answer = await http.post("/token", data={"username": "ana", "password": "tea"})
        value = answer.json()["access_token"]
        headers = {"Authorization": f"Bearer {value}"}
        assert (await http.get("/me", headers=headers)).json() == "ana"
        offered = ["wshub", f"bearer.{value}"]
        ways: list[dict[str, Any]] = [{"additional_headers": headers}, {"subprotocols": offered}]
        for options in ways:
            async with connect(f"{server.ws}/ws", **options) as client:
                assert await client.ask("hello") == "hello"
        without = {"Authorization": f"Bearer {token()}"}
        assert (await refusal(f"{server.ws}/ws", additional_headers=without)).status == 403
        schemes = (await http.get("/openapi.json")).json()["components"]["securitySchemes"]
        assert schemes["OAuth2PasswordBearer"]["flows"]["password"]["tokenUrl"] == "token"


async def test_cookies_and_origins() -> None:
    """The page about cookies sets one that scripts cannot read, and guards what has none yet."""
    page = run("docs/how-to/cookies.md")
    transport = httpx.ASGITransport(page.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://test") as http:
        cookie = (await http.post("/login")).headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "secure", "samesite=lax"))
        for origin, status in (
            ("https://test", 200),
            ("https://app.example.com", 200),
            ("https://x.example", 403),
        ):
            answer = await http.post("/register", headers={"Origin": origin})
            assert answer.status_code == status


async def test_one_endpoint_for_apps_and_pages(ws: str) -> None:
    """On the page about mobile clients a token needs no origin, and a cookie does."""
    page = run("docs/how-to/mobile.md")
    async with live_server(page.app, ws=ws) as server:
        url = f"{server.ws}/ws"
        bearer = {"Authorization": f"Bearer {token()}"}
        async with connect(url, additional_headers=bearer) as client:
            assert await client.ask("hello") == "hello"
        async with connect(url, additional_headers=COOKIE, origin=server.http) as client:
            assert await client.ask("hello") == "hello"
        assert (await refusal(url, additional_headers=COOKIE)).status == 403


async def test_rules_for_rooms() -> None:
    """On the page about rooms a client joins and speaks where the rules let it."""
    page = run("docs/how-to/rooms.md")
    headers = {"Cookie": "session=of-ana"}
    async with live_server(page.app) as server:
        options: dict[str, Any] = {"additional_headers": headers, "origin": server.http}
        for bad in ({"room": "lobby", "text": "x"}, {"room": "board", "join": True}):
            async with connect(f"{server.ws}/guarded", **options) as client:
                await client.send_json(bad)
                assert (await client.closed())[0] == 3003
        async with connect(f"{server.ws}/guarded", **options) as client:
            for room in ("lobby", "user:ana", "team:1"):
                await client.send_json({"room": room, "join": True})
            await client.send_json({"room": "team:1", "text": "hello"})
            assert await client.receive() == "hello"
            await client.send("[]")
            assert (await client.closed())[0] == 1007


async def accepts(server: LiveServer) -> bool:
    """Return whether a handshake is accepted, and not answered with 403."""
    try:
        async with connect(f"{server.ws}/ws"):
            return True
    except InvalidStatus as refused:
        return refused.response.status_code != 403


async def test_a_flood_limit_and_origins_behind_a_proxy() -> None:
    """The page about proxies refuses too many of one address, and knows its pages' origin."""
    page = run("docs/how-to/proxies.md")
    assert isinstance(page.ours, OriginPolicy)

    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    page.app.add_api_websocket_route("/ws", close)
    async with live_server(page.app) as server:
        assert [await accepts(server) for _ in range(50)] == [True] * 50
        later = [await accepts(server) for _ in range(50)]  # some tokens have come back meanwhile
        assert False in later


async def test_guards_of_apps_and_routers(ws: str) -> None:
    """`dependencies=` of an app and of a router run for WebSockets, too: as the page says."""

    async def find_user(value: str) -> None:
        return None

    guard = Depends(authenticate(query("token"), verify=find_user))
    guarded, router, app = FastAPI(dependencies=[guard]), APIRouter(dependencies=[guard]), FastAPI()

    @guarded.websocket("/ws")
    @router.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:
        raise AssertionError("somebody came in")  # pragma: no cover (nobody may)

    app.include_router(router)
    for one in (guarded, app):
        async with live_server(one, ws=ws) as server:
            assert (await refusal(f"{server.ws}/ws?token=x")).status == 403


def test_the_security_page_names_its_tests() -> None:
    """Each risk has a test that there is, or a setting that the page points to."""
    tests = {
        found
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = table_of("docs/security.md", "risk")
    for risk, measure, how in rows:
        named = set(re.findall(r"`(test_\w+)`", how))
        assert named <= tests, risk
        assert named or "a setting" in how or how == "by design", risk
        assert measure, risk
    assert len(rows) >= 16
