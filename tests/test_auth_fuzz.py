"""Whatever a client sends: no error of the server's, no traceback, nobody in who was not let in."""

import asyncio
import hmac
import json
import logging
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlencode

import jwt
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.security import APIKeyCookie, HTTPBasic, HTTPBearer, HTTPDigest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from starlette.types import Message

from wshub import AccessDenied, ConnectionManager, InvalidRoomName
from wshub.auth import (
    InvalidCredential,
    KeySet,
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
from wshub.testing import FaultySink

KEY = "a shared secret of at least 32 bytes, for tests only"
TOKEN = jwt.encode({"sub": "ana", "exp": 4102444800}, KEY, algorithm="HS256")
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


async def answer_of(
    scope: dict[str, Any], *events: dict[str, Any], app: FastAPI = app
) -> list[dict[str, Any]]:
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


def handshake(path: str, **fields: Any) -> dict[str, Any]:
    """Return the scope of a handshake from the app's own page."""
    origin = [(b"origin", b"https://test"), (b"host", b"test")]
    return {
        "type": "websocket",
        "scheme": "wss",
        "path": path,
        "raw_path": b"/",
        "root_path": "",
        "subprotocols": [],
        "query_string": b"",
        "client": ("192.0.2.7", 4711),
        "server": ("test", 443),
        "extensions": {"websocket.http.response": {}},
        **fields,
        "headers": [*origin, *fields.get("headers", [])],
    }


@fuzz
@given(
    st.sampled_from(["header", "cookie", "ticket"]),
    st.integers(0, 10_000),
    st.one_of(st.characters(min_codepoint=33, max_codepoint=126), st.just("")),
)
@example("cookie", 0, "a")  # which is no change
@example("header", 1, ".")
@example("header", len(TOKEN) - 2, ".")
def test_what_was_issued_and_then_changed(place: str, position: int, character: str) -> None:
    """A token, a session or a ticket lets somebody in as it is, and with any change nobody."""
    session = "a-session-of-ana"

    def change(value: str) -> str:
        at = position % len(value)
        return value[:at] + character + value[at + 1 :]

    def find_session(value: str) -> Principal | None:
        return Principal("ana") if value == session else None

    async def try_both() -> tuple[list[dict[str, Any]], list[dict[str, Any]], bool]:
        manager, tickets, guarded = ConnectionManager(), Tickets(), FastAPI()
        guarded.add_exception_handler(WebSocketException, RejectionHandler())
        source = first_of(
            bearer_header(), ticket(tickets), cookie("session").verified_by(find_session)
        )
        get_principal = authenticate(source, verify=jwt_verifier(KEY, algorithms=["HS256"]))

        @guarded.websocket("/ws")
        async def enter(
            websocket: WebSocket, who: Annotated[Principal, Depends(get_principal)]
        ) -> None:
            async with manager.connection(websocket, principal=who):
                pass

        issued = {"header": TOKEN, "cookie": session}
        values = [issued.get(place), issued.get(place)]
        if place == "ticket":
            page = HTTPConnection(handshake("/ws"))
            values = [await tickets.issue(Principal("ana"), page) for _ in "12"]
        good, bad = str(values[0]), change(str(values[1]))
        said = [
            await answer_of(handshake("/ws", **carry(place, value)), connect, app=guarded)
            for value in (good, bad)
        ]
        return said[0], said[1], means_the_same(bad, str(values[1]))

    connect = {"type": "websocket.connect"}
    good, bad, same = asyncio.run(try_both())
    assert good[0]["type"] == "websocket.accept"
    if same:
        assert bad[0]["type"] == "websocket.accept"
    else:
        check(bad)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
token_headers = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "jku", "b64"]),
    values | st.sampled_from(["none", "HS256", "RS256", "ES256", "k1"]),
)
claims = st.dictionaries(
    st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "sid", "scope", "jti"]),
    values | st.sampled_from(["ana", 4102444800, "team"]),
)
SECRET_KEY = {"kty": "oct", "kid": "k1", "k": urlsafe_b64encode(KEY.encode()).decode().rstrip("=")}
VERIFIERS = [
    jwt_verifier(KEY, algorithms=["HS256"]),
    jwt_verifier(KeySet({"keys": [SECRET_KEY | {"alg": "HS256"}]}), algorithms=["HS256"]),
]


@fuzz
@given(token_headers, claims, st.sampled_from([KEY, "somebody else's"]), st.sampled_from(VERIFIERS))
@example({"alg": "HS256", "kid": "k1"}, {"sub": "ana", "exp": 4102444800}, KEY, VERIFIERS[1])
@example({"alg": "none"}, {"sub": "ana", "exp": 4102444800}, "nobody's", VERIFIERS[0])
def test_tokens_of_all_sorts(
    header: dict[str, Any], body: dict[str, Any], key: str, verify: Callable[..., Any]
) -> None:
    """Whatever their header and claims say: only what we signed as agreed is somebody."""

    def encode(part: object) -> str:
        return urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")

    text = f"{encode(header)}.{encode(body)}"
    mac = hmac.digest(key.encode(), text.encode(), "sha256")
    token = f"{text}.{urlsafe_b64encode(mac).decode().rstrip('=')}"
    try:
        principal = asyncio.run(verify(token))
    except InvalidCredential:
        return
    assert key == KEY
    assert header["alg"] == "HS256"
    assert principal.user == body["sub"]
    assert principal.expires_at > time.time()


@fuzz
@given(st.sampled_from(["Basic", "Bearer", "Digest", "basic"]), st.binary(max_size=40) | words)
def test_headers_for_the_classes_of_fastapi(scheme: str, value: bytes) -> None:
    """They raise errors of their own, which nobody gets to see."""
    said = asyncio.run(
        answer_of(
            handshake("/ws", headers=[(b"authorization", scheme.encode() + b" " + value)]),
            {"type": "websocket.connect"},
            app=make_basic_app(),
        )
    )
    check(said)


def make_basic_app() -> FastAPI:
    """Build an app behind FastAPI's own classes, where nobody belongs."""
    guarded = FastAPI()
    guarded.add_exception_handler(WebSocketException, RejectionHandler())
    source = first_of(HTTPBasic(), HTTPDigest(), HTTPBearer(), APIKeyCookie(name="session"))
    get_principal = authenticate(source, verify=lambda _: None)

    @guarded.websocket("/ws")
    async def enter(who: Annotated[Principal, Depends(get_principal)]) -> None:
        raise AssertionError("somebody came in")  # pragma: no cover (nobody may)

    return guarded


def carry(place: str, value: str) -> dict[str, Any]:
    """Return the part of a handshake that has a credential in it."""
    match place:
        case "header":
            return {"headers": [(b"authorization", f"Bearer {value}".encode())]}
        case "cookie":
            return {"headers": [(b"cookie", f"session={value}".encode())]}
        case _:
            return {"query_string": urlencode({"ticket": value}).encode()}


def means_the_same(changed: str, issued: str) -> bool:
    """
    Whether a change is none.

    Base64 has bits at the end that mean nothing (RFC 4648 §3.5), and `/` is read as `_` is. What
    is signed is text, so only the signature itself may differ in that.
    """

    def parts(value: str) -> tuple[str, bytes]:
        signed, _, signature = value.rpartition(".")
        try:
            return signed, urlsafe_b64decode(signature + "==")
        except ValueError:
            return value, b""

    return changed == issued or (issued.count(".") == 2 and parts(changed) == parts(issued))


@fuzz
@given(rooms)
def test_rooms_that_a_user_names(room: str) -> None:
    """Only what the rules allow is entered; anything else closes, with no error of the server's."""
    manager = ConnectionManager(authorize_join=RoomRules({"team:*": with_scopes("team")}))
    principal = Principal("ana", scopes=frozenset({"team"}))

    async def join() -> bool:
        sink = FaultySink()
        with suppress(AccessDenied, InvalidRoomName):
            async with manager.connection(sink.websocket, principal=principal) as connection:
                await connection.join(room)
                return room in connection.rooms
        assert sink.sent[-1]["code"] in {1008, 3003}
        return False

    assert asyncio.run(join()) == (room.startswith("team:") and room != "team:\n")


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
