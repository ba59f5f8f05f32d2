"""Credentials: cookie first, then query parameter, else refused."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket
from httpx import ASGITransport, AsyncClient

from wshub.auth import CookieOrToken, build_cookie_or_token, get_cookie_or_token
from wshub.testing import connect, live_server, refusal

get_ticket = build_cookie_or_token(cookie="ticket_cookie", query="ticket")

app = FastAPI()


@app.websocket("/annotated")
async def annotated(websocket: WebSocket, credential: CookieOrToken) -> None:
    await websocket.accept()
    await websocket.send_text(credential)


@app.websocket("/default")
async def default(websocket: WebSocket, credential: str = Depends(get_cookie_or_token)) -> None:
    await websocket.accept()
    await websocket.send_text(credential)


@app.websocket("/ticket")
async def ticket(websocket: WebSocket, credential: Annotated[str, Depends(get_ticket)]) -> None:
    await websocket.accept()
    await websocket.send_text(credential)


@app.get("/http")
async def http(credential: CookieOrToken) -> str:
    return credential


@pytest.mark.parametrize("path", ["/annotated", "/default"])
@pytest.mark.parametrize(
    ("query", "cookie", "expected"),
    [
        ("?token=abc", None, "abc"),
        ("", "session=xyz", "xyz"),
        ("?token=abc", "session=xyz", "xyz"),
        ("?token=abc", "session=", "abc"),
        ("?token=a&token=b", "other=1", "b"),
        ("?token=", None, ""),
        ("", "session=", ""),
    ],
)
async def test_a_cookie_goes_before_a_token(
    ws: str, path: str, query: str, cookie: str | None, expected: str
) -> None:
    """As in the tutorial: cookie `session`, else query `token`, in both styles of Depends."""
    headers = {"Cookie": cookie} if cookie else {}
    async with (
        live_server(app, ws=ws) as server,
        connect(f"{server.ws}{path}{query}", additional_headers=headers) as client,
    ):
        assert await client.receive() == expected


@pytest.mark.parametrize("query", ["", "?ticket=abc"])
async def test_without_either_the_handshake_is_refused(ws: str, query: str) -> None:
    """WebSocketException(1008) before accept: a real server answers 403."""
    async with live_server(app, ws=ws) as server:
        assert (await refusal(f"{server.ws}/annotated{query}")).status == 403


async def test_names_can_be_chosen(ws: str) -> None:
    """A factory builds the same dependency for other names."""
    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/ticket?ticket=t1") as client:
            assert await client.receive() == "t1"
        headers = {"Cookie": "ticket_cookie=c1"}
        async with connect(f"{server.ws}/ticket?ticket=t1", additional_headers=headers) as client:
            assert await client.receive() == "c1"


async def test_the_dependency_serves_http_routes_too() -> None:
    """The same dependency on an HTTP route answers 401 and names what is missing."""
    transport = ASGITransport(app=app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/http?token=abc")).json() == "abc"
        answer = await client.get("/http")
        assert answer.status_code == 401
        assert answer.json() == {"detail": "cookie 'session' or query parameter 'token' is missing"}
