"""What a refused client gets, over HTTP or in a close frame."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest
from fastapi import FastAPI, WebSocket, WebSocketException
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.exceptions import WebSocketException as StarletteWebSocketException
from starlette.routing import WebSocketRoute

from wshub import Connection, ConnectionManager, exceptions
from wshub.rejections import RejectionHandler
from wshub.testing import DeadClient, connect, live_server, refusal, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

REJECTIONS: dict[str, Callable[[], Exception]] = {
    "unauthorized": lambda: exceptions.unauthorized("log in first"),
    "forbidden": lambda: exceptions.forbidden("not for you"),
    "policy": exceptions.policy_violation,
    "plain": lambda: StarletteWebSocketException(1008, "plain Starlette"),
    "silent": lambda: WebSocketException(4001),
    "impossible": lambda: WebSocketException(1006, "secret"),
    "busy": lambda: exceptions.try_again_later("full house"),
    "often": lambda: exceptions.too_many_requests(retry_after=1.2),
    "name": lambda: exceptions.InvalidRoomName("it is empty"),
}


def app_with(answer: Literal["http", "close"]) -> FastAPI:
    """An app that rejects before or after accept, as its path says."""
    app = FastAPI()
    manager = ConnectionManager()
    handler = RejectionHandler(answer)
    app.add_exception_handler(StarletteWebSocketException, handler)
    app.add_exception_handler(WebSocketRequestValidationError, handler)

    @app.websocket("/before/{name}")
    async def reject(websocket: WebSocket, name: str) -> None:
        error = REJECTIONS[name]()
        raise error

    @app.websocket("/accepted/{name}")
    async def accept_and_reject(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.receive_text()
        error = REJECTIONS[name]()
        raise error

    @app.websocket("/managed/{name}")
    async def manage_and_reject(websocket: WebSocket, name: str) -> None:
        async with manager.connection(websocket):
            error = REJECTIONS[name]()
            raise error

    @app.websocket("/number")
    async def take_number(websocket: WebSocket, n: int) -> None:
        """Never reached: `n` is no number."""

    return app


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("unauthorized", 401, {"code": 3000, "detail": "log in first"}),
        ("forbidden", 403, {"code": 3003, "detail": "not for you"}),
        ("policy", 403, {"code": 1008, "detail": "policy violation"}),
        ("plain", 403, {"code": 1008, "detail": "plain Starlette"}),
        ("silent", 403, {"code": 4001, "detail": "Forbidden"}),
        ("impossible", 500, {"code": 1011, "detail": "internal error"}),
        ("busy", 503, {"code": 1013, "detail": "full house"}),
        ("often", 429, {"code": 1013, "detail": "too many requests"}),
        ("name", 403, {"code": 1008, "detail": "invalid room name: it is empty"}),
    ],
)
async def test_a_rejection_before_accept_is_a_real_http_answer(
    ws: str, name: str, status: int, body: object
) -> None:
    """Need 11 and row 17: status, JSON body and headers instead of a bare 403."""
    async with live_server(app_with("http"), ws=ws) as server:
        refused = await refusal(f"{server.ws}/before/{name}")
    assert (refused.status, refused.json()) == (status, body)
    headers = refused.headers
    assert headers["content-type"] == "application/json"
    assert headers.get("retry-after") == {"busy": "5", "often": "2"}.get(name)
    assert headers.get("www-authenticate") == {"unauthorized": "Bearer"}.get(name)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("unauthorized", 3000, "log in first"),
        ("silent", 4001, ""),
        ("impossible", 1011, "internal error"),
        ("busy", 1013, "full house"),
    ],
)
async def test_a_rejection_can_be_a_close_frame(ws: str, name: str, code: int, reason: str) -> None:
    """Need 11: accepted and closed at once, so that a script in a browser sees code and reason."""
    async with live_server(app_with("close"), ws=ws) as server:
        async with connect(f"{server.ws}/before/{name}") as client:
            assert await client.closed() == (code, reason)
        async with connect(
            f"{server.ws}/before/{name}", subprotocols=["first", "second"]
        ) as client:
            assert client.websocket.subprotocol == "first"
            assert await client.closed() == (code, reason)


@pytest.mark.parametrize("answer", ["http", "close"])
async def test_a_rejection_after_accept_closes_with_its_code(
    ws: str, answer: Literal["http", "close"], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is chosen for handshakes, an open connection gets a close frame."""
    async with live_server(app_with(answer), ws=ws) as server:
        async with connect(f"{server.ws}/accepted/forbidden") as client:
            await client.send("go")
            assert await client.closed() == (3003, "not for you")
        async with connect(f"{server.ws}/managed/forbidden") as client:
            assert await client.closed() == (3003, "not for you")
    assert "ERROR" not in caplog.text


async def test_bad_parameters_are_answered_the_same_way(ws: str) -> None:
    """FastAPI's validation errors become 422, or 1008, and name the parameter."""
    detail = "query.n: Input should be a valid integer, unable to parse string as an integer"
    async with live_server(app_with("http"), ws=ws) as server:
        refused = await refusal(f"{server.ws}/number?n=x")
        assert (refused.status, refused.json()) == (422, {"code": 1008, "detail": detail})
    async with (
        live_server(app_with("close"), ws=ws) as server,
        connect(f"{server.ws}/number?n=x") as client,
    ):
        assert await client.closed() == (1008, detail)


def without_extensions(app: ASGIApp) -> ASGIApp:
    """Hide what the server offers beyond plain ASGI."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    return call


async def test_without_the_denial_response_extension_it_is_a_plain_403(ws: str) -> None:
    """A server that cannot send an HTTP answer sends the 403 that ASGI asks for."""
    app = without_extensions(app_with("http"))
    async with live_server(app, ws=ws, lifespan="off") as server:
        refused = await refusal(f"{server.ws}/before/unauthorized")
    assert (refused.status, refused.body) == (403, b"")


async def test_a_peer_that_left_before_its_answer_is_no_error(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 7: Starlette's own handler raises when the peer is gone; this one does not."""
    app = app_with("http")
    rejected: list[str] = []

    @app.websocket("/late")
    async def reject_late(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        await websocket.receive()
        rejected.append("late")
        raise exceptions.forbidden()

    @app.websocket("/closed")
    async def reject_closed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)
        rejected.append("closed")
        raise exceptions.forbidden()

    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/late") as client:
            await client.send("one")
            client.reset()
        async with connect(f"{server.ws}/closed") as client:
            assert (await client.closed())[0] == 4000
        await until(lambda: sorted(rejected) == ["closed", "late"])
    assert "ERROR" not in caplog.text


@pytest.mark.parametrize("answer", ["http", "close"])
async def test_a_peer_that_left_during_its_handshake_is_no_error(
    ws: str, answer: Literal["http", "close"], caplog: pytest.LogCaptureFixture
) -> None:
    """Row 15: the server's OSError for a vanished client ends in the handler, not in the log."""
    app = app_with(answer)
    entered, release, rejected = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @app.websocket("/slow")
    async def reject_slowly(websocket: WebSocket) -> None:
        entered.set()
        await release.wait()
        rejected.set()
        raise exceptions.forbidden()

    async with live_server(app, ws=ws) as server:
        async with DeadClient(f"{server.ws}/slow", wait=False):
            await until(entered.is_set)
        await until(lambda: not server.connections)
        release.set()
        await until(rejected.is_set)
    assert "ERROR" not in caplog.text


@pytest.mark.parametrize("answer", ["http", "close"])
@pytest.mark.parametrize("managed", [True, False])
async def test_class_endpoints_are_closed_too(
    ws: str, answer: Literal["http", "close"], *, managed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's endpoint classes make a WebSocket of their own; the handler sees another one."""
    manager = ConnectionManager()
    connections: list[Connection[None]] = []

    class Endpoint(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket: WebSocket) -> None:
            if managed:
                connections.append(await manager.connect(websocket))
            else:
                await websocket.accept()

        async def on_receive(self, _: WebSocket, data: str) -> None:
            raise exceptions.forbidden(data)

    handler = RejectionHandler(answer)
    app = Starlette(
        routes=[WebSocketRoute("/", Endpoint)],
        exception_handlers={StarletteWebSocketException: handler},
    )
    async with live_server(app, ws=ws) as server, connect(server.ws) as client:
        await client.send("no")
        assert await client.closed() == (3003, "no")
    assert "ERROR" not in caplog.text
    assert manager.active_connections == []
    endings = [str(connection.closed) for connection in connections]
    assert endings == ["connection closed by the hub with 3003 (no)"] * managed


async def test_an_unknown_status_is_answered_too(ws: str) -> None:
    """A status that HTTP has no phrase for still gets its JSON body."""
    app = FastAPI()
    app.add_exception_handler(StarletteWebSocketException, RejectionHandler())

    @app.websocket("/")
    async def reject(websocket: WebSocket) -> None:
        raise exceptions.Rejection(4001, status=420)

    if ws != "websockets":  # which knows only the codes of the standard library
        async with live_server(app, ws=ws) as server:
            refused = await refusal(server.ws)
        assert (refused.status, refused.json()) == (420, {"code": 4001, "detail": "rejected"})


@pytest.mark.parametrize("registered", [StarletteWebSocketException, WebSocketException])
async def test_either_frameworks_exception_class_will_do(registered: type[Exception]) -> None:
    """FastAPI's WebSocketException is a subclass of Starlette's: both catch what helpers build."""
    app = FastAPI()
    app.add_exception_handler(registered, RejectionHandler())

    @app.websocket("/")
    async def reject(websocket: WebSocket) -> None:
        raise exceptions.unauthorized()

    async with live_server(app) as server:
        assert (await refusal(server.ws)).status == 401


async def test_other_errors_are_passed_on(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """Registered for too much, the handler raises what is not its own."""
    app = FastAPI()
    app.add_exception_handler(LookupError, RejectionHandler())

    @app.websocket("/")
    async def fail(websocket: WebSocket) -> None:
        raise LookupError("not mine")

    async with live_server(app, ws=ws) as server:
        assert (await refusal(server.ws)).status == 500
    assert "not mine" in caplog.text


def test_an_unknown_answer_is_refused() -> None:
    """A misspelt choice is a ValueError at start, not a surprise later."""
    with pytest.raises(ValueError, match="'http' or 'close'"):
        RejectionHandler("smoke signals")  # type: ignore[arg-type]
