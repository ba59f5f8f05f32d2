"""Whatever a client sends: no error of the server's, no traceback, nobody in who was not let in."""

import asyncio
import json
import logging
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.exceptions import WebSocketException
from starlette.types import Message

from wshub import ConnectionManager
from wshub.auth import (
    Principal,
    RoomRules,
    Tickets,
    authenticate,
    bearer_header,
    bearer_subprotocol,
    cookie,
    first_message,
    first_of,
    jwt_verifier,
    query,
    ticket,
    with_scopes,
)
from wshub.rejections import RejectionHandler

KEY = "a shared secret of at least 32 bytes, for tests only"
STATUSES = {400, 401, 403, 404, 405, 503}


def make_app() -> FastAPI:
    """Build an app with every source, behind which nobody belongs."""
    manager = ConnectionManager(authorize_join=RoomRules({"team:*": with_scopes("team")}))
    tickets, app = Tickets(), FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())
    get_principal = authenticate(
        first_of(
            bearer_header(),
            bearer_subprotocol(),
            ticket(tickets),
            query("token"),
            cookie("session"),
            first_message(timeout=5),
        ),
        verify=jwt_verifier(KEY, algorithms=["HS256"]),
    )

    @app.websocket("/ws/{room}")
    async def chat(
        websocket: WebSocket, room: str, who: Annotated[Principal, Depends(get_principal)]
    ) -> None:
        raise AssertionError("somebody came in")  # pragma: no cover (nobody may)

    @app.websocket("/open/{room}")
    async def stranger(websocket: WebSocket, room: str) -> None:
        async with manager.connection(websocket, rooms=[room]):
            raise AssertionError("somebody came in")  # pragma: no cover (nobody may)

    @app.post("/ticket")
    async def issue(request: Request, who: Annotated[Principal, Depends(get_principal)]) -> str:
        raise AssertionError("somebody came in")  # pragma: no cover (nobody may)

    return app


app = make_app()

raw = st.binary(max_size=60)
words = st.one_of(
    raw,
    st.sampled_from(
        [
            b"bearer ",
            b"Bearer e30.e30.e30",
            b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbmEifQ.",
            b"session=",
            b"session=x; session=y",
            b"session=\xff",
            b'session="\\',
            b"https://test",
            b"http://test",
            b"null",
            b"*",
            b"[::1",
            b"test:99999",
        ]
    ),
)
headers = st.lists(
    st.tuples(
        st.sampled_from(
            [b"authorization", b"cookie", b"origin", b"host", b"x-forwarded-for", b"x"]
        ),
        words,
    ),
    max_size=6,
)
subprotocols = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(["wshub", "bearer.", "bearer.x", "bearer.e30.e30.e30"]),
    ),
    max_size=4,
)
queries = st.one_of(
    raw,
    st.builds(lambda name, value: name + b"=" + value, st.sampled_from([b"token", b"ticket"]), raw),
)
rooms = st.one_of(st.text(min_size=1, max_size=300), st.sampled_from(["team:1", "team:\n", "../x"]))
messages = st.one_of(
    st.text(max_size=100).map(lambda text: {"type": "websocket.receive", "text": text}),
    raw.map(lambda data: {"type": "websocket.receive", "bytes": data}),
    st.just({"type": "websocket.disconnect", "code": 1006}),
)


async def answer_of(scope: dict[str, Any], *events: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the app says to a handshake or a request. Raises what a server would log."""
    said: list[dict[str, Any]] = []
    coming = list(events)

    async def receive() -> Message:
        return coming.pop(0) if coming else {"type": "websocket.disconnect", "code": 1006}

    async def send(event: Message) -> None:
        said.append(dict(event))

    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return said


def check(said: list[dict[str, Any]], *, left: bool = False) -> None:
    """The client was refused, and learned nothing about the app."""
    for event in said:
        text = str(event.get("body", "")) + str(event.get("reason", ""))
        assert not any(word in text for word in ("Traceback", "Error", ".py", "/ws", KEY))
        if event["type"] in {"websocket.http.response.start", "http.response.start"}:
            assert event["status"] in STATUSES
        if event["type"] == "websocket.close":
            assert event["code"] in {1000, 1008, 1013, 3000, 3003, 3008}
        if event["type"] == "websocket.accept":
            assert event["subprotocol"] in {None, "wshub"}
    if not left:
        assert said[-1]["type"] != "websocket.accept"


fuzz = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Hundreds of refusals are no news."""
    logging.getLogger("wshub").setLevel(logging.ERROR)


@fuzz
@given(headers, subprotocols, queries, rooms, messages, st.sampled_from(["/ws/", "/open/"]))
def test_handshakes(
    fields: list[tuple[bytes, bytes]],
    offered: list[str],
    query_string: bytes,
    room: str,
    message: dict[str, Any],
    path: str,
) -> None:
    """Headers, cookies, subprotocols, tokens, tickets, rooms and first messages of all sorts."""
    scope = {
        "type": "websocket",
        "scheme": "wss",
        "path": path + room,
        "raw_path": b"/",
        "root_path": "",
        "headers": fields,
        "subprotocols": offered,
        "query_string": query_string,
        "client": ("192.0.2.7", 4711),
        "server": ("test", 443),
        "extensions": {"websocket.http.response": {}},
    }
    said = asyncio.run(answer_of(scope, {"type": "websocket.connect"}, message))
    check(said, left=message["type"] == "websocket.disconnect")


@fuzz
@given(headers, queries)
def test_requests(fields: list[tuple[bytes, bytes]], query_string: bytes) -> None:
    """The same on an HTTP route."""
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "https",
        "http_version": "1.1",
        "path": "/ticket",
        "raw_path": b"/ticket",
        "root_path": "",
        "headers": fields,
        "query_string": query_string,
        "client": None,
        "server": ("test", 443),
    }
    said = asyncio.run(answer_of(scope, {"type": "http.request", "body": b""}))
    check(said)
    assert set(json.loads(said[1]["body"])) == {"detail"}
