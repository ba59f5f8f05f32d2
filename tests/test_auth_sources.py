"""Where credentials are found: on WebSocket and HTTP routes, in which order, and what is told."""

import asyncio
import logging
from base64 import b64encode
from functools import partial
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    HTTPBasic,
    HTTPBearer,
    OAuth2,
    OAuth2PasswordBearer,
    OpenIdConnect,
)
from fastapi.security.base import SecurityBase
from fastapi.security.http import HTTPBase
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from tests.secrecy import secret
from wshub import ConnectionManager
from wshub.auth import (
    Principal,
    Source,
    authenticate,
    bearer_header,
    bearer_subprotocol,
    cookie,
    first_message,
    first_of,
    query,
    redact_queries,
)
from wshub.exceptions import try_again_later
from wshub.rejections import RejectionHandler
from wshub.testing import connect, live_server, refusal, until

TOKEN = secret("s3cret-token.of-ana_1")
OTHER = secret("s3cret-token.of-ben_2")
LOGIN = secret("ana:s3cret-password-of-ana")
USERS = {TOKEN: "ana", OTHER: "ben", LOGIN: "ana"}


async def find_user(token: str) -> Principal | None:
    user = USERS.get(token)
    return Principal(user) if user else None


class Guarded:
    """
    An app with a WebSocket and an HTTP route behind one source.

    Attributes:
        accepted: The subprotocol of each connection.
    """

    def __init__(self, source: Source | SecurityBase, *, answers: bool = True) -> None:
        self.manager = ConnectionManager()
        self.app = FastAPI()
        if answers:
            self.app.add_exception_handler(WebSocketException, RejectionHandler())
        current = Annotated[Principal, Depends(authenticate(source, verify=find_user))]

        @self.app.websocket("/ws")
        async def ws(websocket: WebSocket, principal: current) -> None:
            async with self.manager.connection(websocket, principal=principal) as connection:
                await connection.send(f"hello {connection.user}")
                async for message in connection:
                    await connection.send(message)

        @self.app.get("/me")
        async def me(principal: current) -> str:
            return principal.user


@pytest.fixture
def redacted() -> None:
    """Keep tokens out of uvicorn's log; afterwards its loggers are as before."""
    redact_queries("token", "access token")


async def hello(url: str, **options: Any) -> str | bytes:
    async with connect(url, **options) as client:
        return await client.receive()


@pytest.mark.parametrize(
    ("source", "headers"),
    [
        (bearer_header(), {"Authorization": f"bearer  {TOKEN}"}),
        (OAuth2PasswordBearer("/token"), {"Authorization": f"Bearer {TOKEN}"}),
        (OpenIdConnect(openIdConnectUrl="/id"), {"Authorization": f"Bearer {TOKEN}"}),
        (OAuth2(), {"Authorization": f"Bearer {TOKEN}"}),
        (HTTPBearer(), {"Authorization": f"Bearer {TOKEN}"}),
        (APIKeyHeader(name="X-Key"), {"X-Key": TOKEN}),
    ],
    ids=["ours", "OAuth2PasswordBearer", "OpenIdConnect", "OAuth2", "HTTPBearer", "APIKeyHeader"],
)
async def test_a_header(ws: str, source: Source | SecurityBase, headers: dict[str, str]) -> None:
    """A token in a header, also as FastAPI's own classes find it, opens both kinds of routes."""
    guarded = Guarded(source)
    wrong = [{}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}]
    wrong += [{name: "Bearer wrong"} for name in headers]
    async with (
        live_server(guarded.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        assert await hello(f"{server.ws}/ws", additional_headers=headers) == "hello ana"
        assert (await http.get("/me", headers=headers)).json() == "ana"
        for bad in wrong:
            assert (await refusal(f"{server.ws}/ws", additional_headers=bad)).status == 401
            answer = await http.get("/me", headers=bad)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "source", [cookie("session"), APIKeyCookie(name="session")], ids=["ours", "APIKeyCookie"]
)
async def test_a_cookie(ws: str, source: Source | SecurityBase) -> None:
    """A cookie opens both kinds of routes, a WebSocket only from pages of the same origin."""
    guarded = Guarded(source)
    good = {"Cookie": f"session={TOKEN}"}
    async with (
        live_server(guarded.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        url = f"{server.ws}/ws"
        assert await hello(url, additional_headers=good, origin=server.http) == "hello ana"
        assert (await http.get("/me", headers=good)).json() == "ana"
        for origin in (None, "http://127.0.0.1", "https://evil.example"):
            told = await refusal(url, additional_headers=good, origin=origin)
            assert (told.status, told.json()["detail"]) == (403, "origin not allowed")
        wrong = {"Cookie": "session=wrong"}
        told = await refusal(url, additional_headers=wrong, origin=server.http)
        assert (told.status, told.json()["detail"]) == (401, "invalid credential")


async def test_a_password_is_ambient_too(caplog: pytest.LogCaptureFixture) -> None:
    """Browsers send a remembered password by themselves: the origin is looked at."""
    guarded = Guarded(first_of(HTTPBasic(), bearer_header()))
    async with live_server(guarded.app) as server:
        url = f"{server.ws}/ws"
        good = {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}
        assert await hello(url, additional_headers=good, origin=server.http) == "hello ana"
        assert (await refusal(url, additional_headers=good)).status == 403
        for value in ("!!!", "YW5h", b64encode(b"ana:wrong").decode()):
            wrong = {"Authorization": f"Basic {value}"}
            told = await refusal(url, additional_headers=wrong, origin=server.http)
            assert told.status == 401
            assert told.json()["detail"] in {"log in first", "invalid credential"}
        assert first_of(HTTPBasic(), bearer_header()).is_ambient
        assert first_of(HTTPBase(scheme="Negotiate")).is_ambient
        assert not bearer_header().is_ambient


async def test_a_subprotocol(ws: str) -> None:
    """Scripts offer a token beside the marker; the marker alone is selected, by everybody."""
    guarded = Guarded(bearer_subprotocol())
    async with live_server(guarded.app, ws=ws) as server:
        url = f"{server.ws}/ws"
        for offered in (["wshub", f"bearer.{TOKEN}"], [f"bearer.{TOKEN}", "chat", "wshub"]):
            async with connect(url, subprotocols=offered) as client:
                assert client.websocket.subprotocol == "wshub"
                assert await client.receive() == "hello ana"
        assert (await refusal(url)).status == 401
        for offered in (
            ["wshub"],
            [f"bearer.{TOKEN}"],
            ["wshub", "bearer.wrong"],
            ["wshub", f"bearer.{TOKEN}", f"bearer.{OTHER}"],
        ):
            assert (await refusal(url, subprotocols=offered)).status == 401


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["wshub", f"bearer.{TOKEN}"], "wshub"),
        ([f"bearer.{TOKEN}", "chat"], "chat"),
        ([f"bearer.{TOKEN}"], None),
    ],
)
async def test_a_refusal_that_scripts_see_selects_no_token(
    ws: str, offered: list[str], selected: str | None
) -> None:
    """Accepted only to be closed, a handshake is not answered with the token either."""
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler("close"))

    @app.websocket("/ws")
    async def refuse(
        websocket: WebSocket,
        principal: Annotated[Principal, Depends(authenticate(cookie("x"), verify=find_user))],
    ) -> None:
        raise AssertionError("it has no cookie")  # pragma: no cover

    async with (
        live_server(app, ws=ws) as server,
        connect(f"{server.ws}/ws", subprotocols=offered) as client,
    ):
        assert client.websocket.subprotocol == selected
        assert await client.closed() == (3000, "log in first")


async def test_a_query_parameter_and_its_log(
    ws: str, redacted: None, caplog: pytest.LogCaptureFixture
) -> None:
    """With the filter, neither a request nor a WebSocket, accepted or refused, shows its token."""
    guarded = Guarded(query("token"))
    async with (
        live_server(guarded.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        assert await hello(f"{server.ws}/ws?a=b&token={TOKEN}") == "hello ana"
        assert (await http.get("/me", params={"token": TOKEN})).json() == "ana"
        assert (await refusal(f"{server.ws}/ws?tok%65n={TOKEN}x")).status == 401
        await until(lambda: caplog.text.count("[redacted]") == 3)
    assert "a=b&token=[redacted]" in caplog.text


def test_what_is_redacted(redacted: None, caplog: pytest.LogCaptureFixture) -> None:
    """Values of the parameters named, in messages and their arguments, and nothing else."""
    logger = logging.getLogger("uvicorn.error")
    logger.warning("GET /x?token=abc&user=ana#end")
    logger.warning("GET /x?user=O'Brien&token=abc HTTP/1.1")
    logger.warning("%(url)s", {"url": "/x?access+token=abc&token"})
    logger.warning("%s %s", "/x?user=ana", 7)
    logger.warning('"GET /x?a="&token=abc" 200')
    logger.warning('"WebSocket %s" [accepted]', '/x?a=#"&token=abc')
    logger.warning(ValueError("/x?token=abc"))
    record = {"name": logger.name, "msg": "/x?token=abc", "args": None, "levelno": logging.ERROR}
    logger.handle(logging.makeLogRecord(record))
    assert [record.getMessage() for record in caplog.records] == [
        "GET /x?token=[redacted]&user=ana#end",
        "GET /x?user=O'Brien&token=[redacted] HTTP/1.1",
        "/x?access+token=[redacted]&token",
        "/x?user=ana 7",
        '"GET /x?a="&token=[redacted]" 200',
        '"WebSocket /x?a=#"&token=[redacted]" [accepted]',
        "/x?token=abc",
        "/x?token=[redacted]",
    ]
    with pytest.raises(ValueError, match="name the query parameters"):
        redact_queries()


async def test_the_first_place_with_something_counts() -> None:
    """In the order of first_of(), whatever else there is; a wrong one is not made good by it."""
    source = first_of(bearer_header(), first_of(cookie("session"), query("token")))
    guarded = Guarded(source)
    both = {"Authorization": f"Bearer {TOKEN}", "Cookie": f"session={OTHER}"}
    async with (
        live_server(guarded.app) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        assert (await http.get("/me", headers=both)).json() == "ana"
        headers = {"Authorization": "Bearer", "Cookie": f"session={OTHER}"}
        assert (await http.get("/me", headers=headers)).json() == "ben"
        headers = {"Authorization": "Bearer wrong", "Cookie": f"session={OTHER}"}
        assert (await http.get("/me", headers=headers)).status_code == 401
        # A cookie is looked at for its origin only if it is what counts.
        assert await hello(f"{server.ws}/ws", additional_headers=both) == "hello ana"
    assert source.name == "bearer token or cookie 'session' or query parameter 'token'"
    assert repr(source) == f"<source: {source.name}>"


async def test_each_place_may_have_a_verifier() -> None:
    """Sources verified by somebody of their own do not ask the one for the rest."""

    async def find_session(session: str) -> Principal | None:
        return Principal("session user") if session == "sid" else None

    source = first_of(cookie("session").verified_by(find_session), bearer_header())
    get_principal = authenticate(source, verify=find_user)
    get_session = authenticate(first_of(cookie("a"), cookie("b")).verified_by(find_session))
    app = FastAPI()

    @app.get("/mixed")
    async def mixed(principal: Annotated[Principal, Depends(get_principal)]) -> str:
        return principal.user

    @app.get("/session")
    async def session(principal: Annotated[Principal, Depends(get_session)]) -> str:
        return principal.user

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path, headers, status in (
            ("/mixed", {"Cookie": "session=sid"}, 200),
            ("/mixed", {"Cookie": f"session={TOKEN}"}, 401),
            ("/mixed", {"Authorization": f"Bearer {TOKEN}"}, 200),
            ("/mixed", {"Authorization": "Bearer sid"}, 401),
            ("/session", {"Cookie": "b=sid"}, 200),
        ):
            assert (await http.get(path, headers=headers)).status_code == status
    with pytest.raises(TypeError, match="nobody verifies bearer token; pass verify="):
        authenticate(source)


async def test_a_source_alone_is_a_dependency() -> None:
    """As the tutorial's: it returns the credential, or refuses with 1008 or 401."""
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler("close"))

    @app.get("/")
    async def get(token: Annotated[str, Depends(bearer_header())]) -> str:
        return token

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, token: Annotated[str, Depends(bearer_header())]) -> None:
        raise AssertionError("it has no token")  # pragma: no cover

    async with (
        live_server(app) as server,
        httpx.AsyncClient(base_url=server.http) as http,
        connect(f"{server.ws}/ws") as client,
    ):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/", headers=headers)).json() == TOKEN
        huge = {"Authorization": f"Bearer {'x' * 9000}"}
        assert (await http.get("/", headers=huge)).json() == {"detail": "bearer token is missing"}
        assert await client.closed() == (1008, "bearer token is missing")


def test_openapi_knows_the_schemes() -> None:
    """The interactive docs offer to log in, with our sources and with FastAPI's classes."""
    guarded = Guarded(first_of(OAuth2PasswordBearer("/token"), cookie("s:1"), bearer_header()))
    openapi = guarded.app.openapi()
    schemes = openapi["components"]["securitySchemes"]
    assert schemes["cookie-s_1"] == {"type": "apiKey", "in": "cookie", "name": "s:1"}
    assert schemes["OAuth2PasswordBearer"]["flows"]["password"]["tokenUrl"] == "/token"
    assert {"bearer": []} in openapi["paths"]["/me"]["get"]["security"]
    assert len(schemes) == 3


async def test_a_verifier_that_may_block_runs_in_a_thread() -> None:
    """`def` runs where it hurts nobody, callable objects as they are, and each may refuse."""
    threads: list[bool] = []

    def is_loop_here() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def blocking(token: str) -> Principal | None:
        threads.append(is_loop_here())
        return Principal("ana") if token == "good" else None

    class Callable:
        async def __call__(self, token: str) -> Principal:
            threads.append(is_loop_here())
            return Principal(token)

    app = FastAPI()

    @app.get("/blocking")
    async def one(
        principal: Annotated[Principal, Depends(authenticate(bearer_header(), verify=blocking))],
    ) -> str:
        return principal.user

    @app.get("/callable")
    async def two(
        principal: Annotated[Principal, Depends(authenticate(bearer_header(), verify=Callable()))],
    ) -> str:
        return principal.user

    @app.get("/late")
    async def three(
        principal: Annotated[
            Principal,
            Depends(authenticate(bearer_header(), verify=partial(find_user))),
        ],
    ) -> str:
        return principal.user

    @app.get("/wrong")
    async def four(
        principal: Annotated[
            Principal, Depends(authenticate(bearer_header(), verify=lambda _: "ana"))
        ],
    ) -> str:
        raise AssertionError("a str is no principal")  # pragma: no cover

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        good, bad = {"Authorization": "Bearer good"}, {"Authorization": "Bearer bad"}
        assert (await http.get("/blocking", headers=good)).json() == "ana"
        assert (await http.get("/blocking", headers=bad)).status_code == 401
        assert (await http.get("/callable", headers=bad)).json() == "bad"
        late = {"Authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/late", headers=late)).json() == "ana"
        with pytest.raises(TypeError, match="wrap the user id"):
            await http.get("/wrong", headers=good)
    assert threads == [False, False, True]


async def test_a_verifier_that_refuses_by_itself() -> None:
    """On an HTTP route its rejection becomes an answer, and a bad user id is a bad credential."""

    def verify(token: str) -> Principal:
        if token == "bad":
            return Principal("a\nb")
        raise try_again_later()

    app = FastAPI()

    @app.get("/me")
    async def me(
        principal: Annotated[Principal, Depends(authenticate(bearer_header(), verify=verify))],
    ) -> str:
        raise AssertionError("it lets nobody in")  # pragma: no cover

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answers = [
            await http.get("/me", headers={"Authorization": f"Bearer {token}"})
            for token in ("bad", "good")
        ]
    assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [
        (401, "invalid credential"),
        (503, "try again later"),
    ]


def test_what_is_no_source() -> None:
    """Mistakes are told when the app is built."""
    with pytest.raises(TypeError, match="is no source"):
        first_of("session")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        first_of()
    with pytest.raises(ValueError, match="put it last"):
        first_of(first_message(), cookie("session"))
    with pytest.raises(ValueError, match="timeout must be"):
        first_message(timeout=0)
    with pytest.raises(ValueError, match="max_waiting must be"):
        first_message(max_waiting=0)


@pytest.mark.parametrize("answers", [True, False])
async def test_the_first_message(
    ws: str, *, answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The token comes first and registers; anything else is closed, and who leaves is no error."""
    guarded = Guarded(first_of(cookie("session"), first_message()), answers=answers)
    async with live_server(guarded.app, ws=ws) as server:
        url = f"{server.ws}/ws"
        async with connect(url, subprotocols=["wshub", "x"]) as client:
            assert client.websocket.subprotocol == "wshub"
            assert guarded.manager.statistics().connections == 0
            assert await client.ask(TOKEN) == "hello ana"
            assert await client.ask("next") == "next"
        for bad, reason in (
            ("wrong", "invalid credential"),
            (TOKEN.encode(), "log in first"),
            ("x" * 9000, "log in first"),
        ):
            async with connect(url) as client:
                await client.send(bad)
                assert await client.closed() == (3000, reason)
        async with connect(url) as client:
            client.reset()
        async with connect(url):
            pass
        await until(lambda: server.connections == 0)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.http}/me")).status_code == 401
    assert "ERROR" not in caplog.text


async def test_a_first_message_that_does_not_come(ws: str) -> None:
    """Silence ends with 3008, and only so many silent clients are waited for."""
    app = FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())
    patient = authenticate(first_message(timeout=60, max_waiting=1), verify=find_user)
    hasty = authenticate(first_message(timeout=0.01), verify=find_user)

    async def end(websocket: WebSocket, principal: Principal) -> None:
        await websocket.close(4000)

    @app.websocket("/patient")
    async def wait(websocket: WebSocket, principal: Annotated[Principal, Depends(patient)]) -> None:
        await end(websocket, principal)

    @app.websocket("/hasty")
    async def hurry(websocket: WebSocket, principal: Annotated[Principal, Depends(hasty)]) -> None:
        raise AssertionError("no message came")  # pragma: no cover

    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/hasty") as client:
            assert await client.closed() == (3008, "no token came")
        async with connect(f"{server.ws}/patient") as client:
            assert (await refusal(f"{server.ws}/patient")).status == 503
            await client.send(TOKEN)
            assert (await client.closed())[0] == 4000
        async with connect(f"{server.ws}/patient") as client:
            await client.send(TOKEN)
            assert (await client.closed())[0] == 4000


async def test_a_websocket_that_the_app_accepted(ws: str) -> None:
    """first_message() takes it as it is."""
    app = FastAPI()
    get_principal = authenticate(first_message(), verify=find_user)

    @app.websocket("/ws")
    async def wait(websocket: WebSocket) -> None:
        await websocket.accept()
        principal = await get_principal(connection=websocket)
        await websocket.send_text(principal.user)

    async with live_server(app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask(OTHER) == "ben"


async def test_a_peer_that_left_before_it_was_accepted() -> None:
    """What servers raise for it is a refusal, and nothing is written to it any more."""

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        raise OSError("gone")

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    websocket = WebSocket(scope, receive, send)
    get_principal = authenticate(first_message(), verify=find_user)
    with pytest.raises(WebSocketException, match="left without a token"):
        await get_principal(connection=websocket)
    await websocket._send({"type": "websocket.close"})


async def test_logs_say_who_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is one line; paths are shown so that they cannot forge another."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/rooms/\n2026 ERROR forged",
        "headers": [(b"authorization", b"Bearer wrong")],
        "query_string": b"",
        "client": ("192.0.2.7", 1),
    }
    get_principal = authenticate(bearer_header(), verify=find_user)
    with pytest.raises(Exception, match="invalid credential"):
        await get_principal(connection=HTTPConnection(scope))
    scope["client"] = None
    with pytest.raises(Exception, match="log in first"):
        await get_principal(connection=HTTPConnection({**scope, "headers": []}))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        r"refused http '/rooms/\n2026 ERROR forged' from 192.0.2.7: bearer token is not valid"
    )
    assert second.endswith("from an unknown address: bearer token is missing")
