"""A page of another origin, in a browser with its visitor's cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse
from playwright.async_api import expect
from starlette.exceptions import WebSocketException

from wshub import ConnectionManager
from wshub.auth import OriginPolicy, Principal, authenticate, cookie
from wshub.rejections import RejectionHandler
from wshub.testing import live_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.examples.conftest import Running, Tabs

    Run = Callable[..., AbstractAsyncContextManager[Running]]

PHONE = {"width": 360, "height": 640}

HIJACK = """
<!DOCTYPE html><title>Cats</title><link rel="icon" href="data:,"><p id="state" role="status"></p>
<script>
  const tell = (text) => { document.getElementById("state").textContent = text; };
  const socket = new WebSocket("%s");
  socket.onmessage = (event) => tell(`heard ${event.data}`);
  socket.onclose = (event) => tell(`closed with ${event.code} ${event.reason}`);
</script>
"""
"""A page that opens a WebSocket somewhere, wherever it is itself."""


def victim(origins: OriginPolicy | None) -> FastAPI:
    """An app whose WebSocket greets whoever the cookie says."""

    async def verify(value: str) -> Principal | None:
        return Principal("ana") if value == "of-ana" else None

    app, manager = FastAPI(), ConnectionManager()
    app.add_exception_handler(WebSocketException, RejectionHandler("close"))
    find_user = Depends(authenticate(cookie("session"), verify=verify, origins=origins))

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        url = str(request.url_for("greet")).replace("http", "ws")
        response = HTMLResponse(HIJACK % url)
        response.set_cookie("session", "of-ana", httponly=True, samesite="lax")
        return response

    @app.websocket("/ws")
    async def greet(websocket: WebSocket, who: Principal = find_user) -> None:
        async with manager.connection(websocket, principal=who) as connection:
            await connection.send(f"hello {who.user}")
            await connection.receive()

    return app


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.browser
async def test_a_page_of_another_origin(tabs: Tabs, *, careless: bool) -> None:
    """
    It opens a WebSocket with its visitor's cookie, and is refused; without the check it is not.

    Ports are origins of their own but share their cookies, and count as one site to SameSite.
    """
    evil = FastAPI()
    app = victim(OriginPolicy(allow="*") if careless else None)
    async with live_server(app) as server, live_server(evil) as other:

        @evil.get("/")
        async def page() -> HTMLResponse:
            return HTMLResponse(HIJACK % f"{server.ws}/ws")

        own = await tabs.open(f"{server.http}/")
        await expect(own.get_by_role("status")).to_have_text("heard hello ana")
        cats = await tabs.open(f"{other.http}/", beside=own)
        told = "heard hello ana" if careless else "closed with 3003 origin not allowed"
        await expect(cats.get_by_role("status")).to_have_text(told)
        await own.reload()
        await expect(own.get_by_role("status")).to_have_text("heard hello ana")
