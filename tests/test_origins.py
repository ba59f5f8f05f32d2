"""From which pages a browser's cookies are taken."""

import logging
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from tests.secrecy import secret
from wshub import Rejection
from wshub.auth import OriginPolicy, Principal, authenticate, cookie
from wshub.rejections import RejectionHandler
from wshub.testing import connect, live_server, refusal


def handshake(
    origin: str | list[str] | None,
    *,
    host: str | list[str] = "chat.example.com",
    scheme: str = "wss",
    kind: str = "websocket",
    method: str = "GET",
) -> HTTPConnection:
    """Build what a server makes of a handshake, or of a request."""
    origins = [origin] if isinstance(origin, str) else origin or []
    hosts = [host] if isinstance(host, str) else host
    headers = [(b"origin", value.encode()) for value in origins]
    headers += [(b"host", value.encode()) for value in hosts]
    scope: dict[str, Any] = {
        "type": kind,
        "scheme": scheme,
        "path": "/ws",
        "headers": headers,
        "client": ("192.0.2.7", 4711),
    }
    if kind == "http":
        scope["method"] = method
    return HTTPConnection(scope)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "is_allowed"),
    [
        ("https://chat.example.com", "chat.example.com", "wss", True),
        ("https://chat.example.com:443", "chat.example.com", "wss", True),
        ("https://chat.example.com", "chat.example.com:443", "wss", True),
        ("https://CHAT.example.com", "chat.EXAMPLE.com", "wss", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "ws", True),
        ("http://[::1]:8000", "[::1]:8000", "ws", True),
        ("http://chat.example.com", "chat.example.com", "wss", False),
        ("https://chat.example.com", "chat.example.com", "ws", False),
        ("https://chat.example.com:8443", "chat.example.com", "wss", False),
        ("https://chat.example.com.evil.example", "chat.example.com", "wss", False),
        ("https://evil.example/chat.example.com", "chat.example.com", "wss", False),
        ("https://chat.example.com@evil.example", "chat.example.com", "wss", False),
        ("https://evil.example", "chat.example.com", "wss", False),
        ("null", "chat.example.com", "wss", False),
        ("", "", "wss", False),
        ("https://chat.example.com/", "chat.example.com", "wss", False),
        ("https://chat.example.com https://evil.example", "chat.example.com", "wss", False),
        (["https://chat.example.com"] * 2, "chat.example.com", "wss", False),
        ("https://chat.example.com", ["chat.example.com"] * 2, "wss", False),
        ("https://chat.example.com", [], "wss", False),
        (None, "chat.example.com", "wss", False),
    ],
)
def test_the_same_origin(
    origin: str | list[str] | None, host: str | list[str], scheme: str, *, is_allowed: bool
) -> None:
    """Scheme, host and port are those of the host that the handshake is for, exactly."""
    problem = OriginPolicy().find_problem(handshake(origin, host=host, scheme=scheme))
    assert (problem is None) is is_allowed


def test_a_list_of_origins() -> None:
    """What is listed is allowed besides, or instead; nothing is a pattern."""
    policy = OriginPolicy(allow=["https://app.example.com", "capacitor://localhost"])
    only = OriginPolicy(allow=["https://app.example.com"], same_origin=False)
    for origin, besides, instead in (
        ("https://app.example.com", True, True),
        ("https://app.example.com:443", True, True),
        ("capacitor://localhost", True, False),
        ("https://chat.example.com", True, False),
        ("https://www.app.example.com", False, False),
        ("https://appxexample.com", False, False),
    ):
        assert (policy.find_problem(handshake(origin)) is None) is besides
        assert (only.find_problem(handshake(origin)) is None) is instead


def test_a_missing_origin_is_what_the_app_says() -> None:
    """Refused by default; allowed where it is said, and then only if it is missing."""
    assert OriginPolicy().find_problem(handshake(None)) == "it has no Origin header"
    lenient = OriginPolicy(missing="allow")
    assert lenient.find_problem(handshake(None)) is None
    assert lenient.find_problem(handshake("https://evil.example")) is not None
    assert OriginPolicy(allow="*").find_problem(handshake("https://evil.example")) is None


@pytest.mark.parametrize(
    ("method", "origin", "is_allowed"),
    [
        ("GET", "https://evil.example", True),
        ("POST", "https://evil.example", False),
        ("DELETE", "null", False),
        ("POST", "https://chat.example.com", True),
        ("POST", None, True),
    ],
)
def test_requests_that_change_something(
    method: str, origin: str | None, *, is_allowed: bool
) -> None:
    """A form on another site is refused, too; what only reads, or is no browser's, is not."""
    request = handshake(origin, kind="http", scheme="https", method=method)
    assert (OriginPolicy().find_problem(request) is None) is is_allowed


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"allow": "https://app.example.com"}, TypeError, "is a collection"),
        ({"allow": ["app.example.com"]}, ValueError, "is no origin"),
        ({"allow": ["null"]}, ValueError, "is no origin"),
        ({"allow": ["https://*.example.com/"]}, ValueError, "is no origin"),
        ({"same_origin": False}, ValueError, "nobody could connect"),
        ({"missing": "ignore"}, ValueError, "must be 'refuse' or 'allow'"),
    ],
)
def test_what_is_no_policy(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """Mistakes are told when the policy is made."""
    with pytest.raises(error, match=text):
        OriginPolicy(**options)


async def test_a_refusal_is_logged_with_its_reason(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a minute as a warning, else as information; a client cannot forge a line."""
    monkeypatch.setattr("wshub.auth.refusal._quiet_until", {})
    policy = OriginPolicy()
    for _ in range(2):
        with pytest.raises(Rejection) as refused:
            await policy(handshake("https://evil.example\nERROR"))
        assert (refused.value.code, refused.value.reason) == (3003, "origin not allowed")
    with pytest.raises(HTTPException) as forbidden:
        await policy(handshake("null", kind="http", method="POST", scheme="https", host=[]))
    assert (forbidden.value.status_code, forbidden.value.headers) == (403, None)
    assert [record.levelno for record in caplog.records] == [
        logging.WARNING,
        logging.INFO,
        logging.INFO,
    ]
    assert caplog.records[0].getMessage() == (
        r"refused websocket '/ws' from 192.0.2.7: its origin 'https://evil.example\nERROR' "
        "is not allowed, and it is for 'https://chat.example.com:443'"
    )
    assert caplog.records[2].getMessage().endswith("its origin 'null' is not allowed")


async def test_cookies_of_other_sites_pages_change_nothing(ws: str) -> None:
    """A listed origin is let in, any other is answered 403, WebSocket and POST alike."""
    session = secret()

    async def verify(value: str) -> Principal | None:
        return Principal("ana") if value == session else None

    ours = OriginPolicy(allow=["https://app.example.com"])
    get_principal = authenticate(cookie("session"), verify=verify, origins=ours)
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())

    @app.websocket("/ws")
    async def chat(websocket: WebSocket, who: Annotated[Principal, Depends(get_principal)]) -> None:
        await websocket.accept()
        await websocket.close(4000)

    @app.post("/guarded", dependencies=[Depends(ours)])
    async def guarded() -> str:
        return "done"

    @app.post("/transfer")
    async def transfer(who: Annotated[Principal, Depends(get_principal)]) -> str:
        return who.user

    headers = {"Cookie": f"session={session}"}
    async with (
        live_server(app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http, headers=headers) as http,
    ):
        url = f"{server.ws}/ws"
        assert (
            await refusal(url, additional_headers=headers, origin="https://x.example")
        ).json() == {
            "code": 3003,
            "detail": "origin not allowed",
        }
        page = "https://app.example.com"
        async with connect(url, additional_headers=headers, origin=page) as client:
            assert (await client.closed())[0] == 4000
        for origin in ("https://x.example", page, None):
            answer = await http.post("/transfer", headers={"Origin": origin} if origin else {})
            assert answer.status_code == (403 if origin == "https://x.example" else 200)
            again = await http.post("/guarded", headers={"Origin": origin} if origin else {})
            assert again.status_code == answer.status_code
