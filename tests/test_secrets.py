"""What is worth stealing is in no log, no error, no text of an object and no figure."""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.exceptions import WebSocketException

from tests.secrecy import Eavesdropper, secret
from wshub import Connection, ConnectionManager, Event
from wshub.auth import (
    InvalidCredential,
    Principal,
    Tickets,
    authenticate,
    bearer_header,
    bearer_subprotocol,
    cookie,
    first_message,
    first_of,
    query,
    redact_queries,
    ticket,
)
from wshub.auth.source import Found
from wshub.backends import backend_from_url, one_time_keys_from_url
from wshub.rejections import RejectionHandler
from wshub.testing import FaultySink, connect, live_server, refusal, until

PLACES = ("header", "subprotocol", "query", "cookie", "message")


class Vault:
    """
    An app that takes credentials in every place, and keeps what it says about them.

    Attributes:
        good: A credential that is worth something, for each place.
        bad: One that is not.
        told: Texts of everything that the app was handed or that went wrong.
    """

    def __init__(self) -> None:
        self.good = {place: secret() for place in PLACES}
        self.bad = {place: secret() for place in PLACES}
        self.told: list[str] = []
        self.manager = ConnectionManager(hooks=[self._note])
        self.tickets = Tickets()
        self.app = FastAPI()
        self.app.add_exception_handler(WebSocketException, self._answer)
        self.source = first_of(
            bearer_header(),
            bearer_subprotocol(),
            ticket(self.tickets),
            query("token"),
            cookie("session"),
            first_message(),
        )
        get_principal = authenticate(self.source, verify=self._verify)

        @self.app.post("/ticket")
        async def issue(request: Request, who: Annotated[Principal, Depends(get_principal)]) -> str:
            return secret(await self.tickets.issue(who, request))

        @self.app.websocket("/ws")
        async def chat(
            websocket: WebSocket, who: Annotated[Principal, Depends(get_principal)]
        ) -> None:
            async with self.manager.connection(websocket, principal=who) as connection:
                await connection.send("in")
                self._look(connection)
                async for message in connection:
                    raise LookupError(f"{connection!r} {who} {message!r}")

    async def _verify(self, value: str) -> Principal:
        if value in self.good.values():
            return Principal("ana", session_id=value, claims={"token": value})
        raise InvalidCredential("nobody knows it")

    async def _answer(self, websocket: WebSocket, error: Exception) -> None:
        self.told += traceback.format_exception(error)
        self.told += [repr(error), str(error)]
        await RejectionHandler()(websocket, error)

    def _note(self, event: Event) -> None:
        self.told.append(repr(event))

    def _look(self, connection: Connection) -> None:
        self.told += [repr(connection), repr(connection.principal), repr(self.manager)]
        self.told += [repr(self.manager.statistics()), repr(self.source), repr(self.tickets)]


@pytest.fixture
def redacted() -> None:
    """Keep tokens out of uvicorn's log; afterwards its loggers are as before."""
    redact_queries("token", "ticket")


async def test_no_credential_is_told(
    ws: str,
    redacted: None,
    nothing_secret_is_logged: Eavesdropper,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Good or bad, in whichever place, accepted, refused, or in a handler that fails."""
    vault = Vault()
    async with (
        live_server(vault.app, ws=ws) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        for values, is_good in ((vault.good, True), (vault.bad, False)):
            for place, value in values.items():
                places: dict[str, dict[str, Any]] = {
                    "header": {"additional_headers": {"Authorization": f"Bearer {value}"}},
                    "subprotocol": {"subprotocols": ["wshub", f"bearer.{value}"]},
                    "cookie": {"additional_headers": {"Cookie": f"session={value}"}},
                }
                options = places.get(place, {})
                url = f"{server.ws}/ws" + (f"?token={value}" if place == "query" else "")
                if not is_good and place != "message":
                    assert (await refusal(url, origin=server.http, **options)).status == 401
                    continue
                async with connect(url, origin=server.http, **options) as client:
                    if place == "message":
                        await client.send(value)
                    if is_good:
                        assert await client.receive() == "in"
                        await client.send("fail")
                    assert (await client.closed())[0] == (1011 if is_good else 3000)
        headers = {"Authorization": f"Bearer {vault.good['header']}"}
        value = (await http.post("/ticket", headers=headers)).json()
        async with connect(f"{server.ws}/ws?ticket={value}") as client:
            assert await client.receive() == "in"
        assert (await refusal(f"{server.ws}/ws?ticket={value}")).status == 401
        for params in ({"token": vault.bad["query"]}, {"ticket": value}):
            assert (await http.post("/ticket", params=params)).status_code == 401
        await until(lambda: vault.manager.statistics().connections == 0)
    told = "\n".join(vault.told)
    secrets = {*vault.good.values(), *vault.bad.values(), value}
    assert {hidden for hidden in secrets if hidden in told} == set()
    assert "nobody knows it" in caplog.text  # the log is not empty for that
    assert nothing_secret_is_logged.heard == []


async def test_a_handler_that_fails_over_a_message(caplog: pytest.LogCaptureFixture) -> None:
    """What wshub says of it has no text that the message may be in; uvicorn shows more."""
    manager, sink, message = ConnectionManager(), FaultySink(), secret()
    with pytest.raises(KeyError):
        async with manager.connection(sink.websocket):
            raise KeyError(message)
    assert "KeyError; closing with 1011" in caplog.text
    assert message not in caplog.text


def test_a_credential_that_was_found_is_not_shown() -> None:
    """Tools print what is in the frames of a traceback."""
    hidden = secret()
    assert hidden not in repr(Found(hidden, cookie("session")))


def test_the_search_finds_what_is_told(nothing_secret_is_logged: Eavesdropper) -> None:
    """In messages, in arguments and in tracebacks; what a server says at level debug is its own."""
    hidden = secret()
    logging.getLogger("wshub").debug("it is %s", hidden)
    logging.getLogger("uvicorn.error").error("failed", exc_info=ValueError(hidden))
    logging.getLogger("websockets.server").warning(hidden)
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(logging.DEBUG)
    uvicorn.debug(hidden)
    uvicorn.setLevel(logging.NOTSET)
    assert len(nothing_secret_is_logged.heard) == 2
    nothing_secret_is_logged.heard.clear()


SERVERS = [
    "redis://app:{}@host",
    "rediss://app:{}@host",
    "redis+cluster://app:{}@host",
    "redis+sentinel://app:{}@host/service?sentinel_password={}",
    "postgresql://app:{}@host",
    "nats://app:{}@host",
    "nats://{}@host",
]


@pytest.mark.parametrize("make", [backend_from_url, one_time_keys_from_url])
@pytest.mark.parametrize("url", SERVERS)
def test_no_object_of_a_backend_tells_its_password(make: Callable[[str], object], url: str) -> None:
    """However deep in it, for tools print what they find in the frames of a traceback."""
    password = secret()
    found = list(parts_of(make(url.replace("{}", password))))
    assert any(password == part for part in found)
    shown = [part for part in found if not isinstance(part, str | dict)]
    assert [type(part) for part in shown if password in repr(part)] == []


def parts_of(whole: object) -> Iterator[object]:
    """Return an object and what it holds, and what that holds."""
    seen: dict[int, object] = {}
    left = [whole]
    while left:
        part = left.pop()
        if id(part) in seen or isinstance(part, type | ModuleType):
            continue
        seen[id(part)] = part
        yield part
        if isinstance(part, Mapping):
            left += part.values()
        elif isinstance(part, tuple | list | set | deque):
            left += part
        elif isinstance(part, FunctionType):
            left += [cell.cell_contents for cell in part.__closure__ or ()]
        else:
            slots = [name for kind in type(part).__mro__ for name in getattr(kind, "__slots__", ())]
            left += [getattr(part, name) for name in slots if hasattr(part, name)]
            left += getattr(part, "__dict__", {}).values()
