"""
The tutorial's second app: a cookie or a token, a path and a query parameter.

Run it with ``python -m examples items`` and open the address that it prints. Connect with
an empty token to see how a page learns that it was refused.
"""

from pathlib import Path

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import FileResponse
from starlette.exceptions import WebSocketException

from wshub import Connection, ConnectionManager
from wshub.auth import CookieOrToken, get_cookie_or_token
from wshub.rejections import RejectionHandler

manager = ConnectionManager()
app = FastAPI(title="wshub example: items", lifespan=manager.lifespan)
# A refusal over HTTP is invisible to scripts: the page would see code 1006 and no reason.
app.add_exception_handler(WebSocketException, RejectionHandler(answer="close"))


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.websocket("/items/{item_id}/ws")
async def item(
    *,
    websocket: WebSocket,
    item_id: str,
    q: int | None = None,
    cookie_or_token: CookieOrToken,
) -> None:
    """The `Annotated` style: the type carries the dependency."""
    async with manager.connection(websocket) as connection:
        await answer(connection, item_id, q, cookie_or_token)


@app.websocket("/default-style/items/{item_id}/ws")
async def item_in_default_style(
    websocket: WebSocket,
    item_id: str,
    q: int | None = None,
    cookie_or_token: str = Depends(get_cookie_or_token),
) -> None:
    """The same with the dependency as the default value."""
    async with manager.connection(websocket) as connection:
        await answer(connection, item_id, q, cookie_or_token)


async def answer(connection: Connection, item_id: str, q: int | None, cookie_or_token: str) -> None:
    async for data in connection.iter_text():
        await connection.send(f"Session cookie or query token value is: {cookie_or_token}")
        if q is not None:
            await connection.send(f"Query parameter q is: {q}")
        await connection.send(f"Message text was: {data}, for item ID: {item_id}")
