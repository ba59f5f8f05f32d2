"""Tickets: for one user, one origin, some seconds and one time."""

import asyncio
import re
import time
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection

from tests.secrecy import secret
from wshub import BackendUnavailable, ConnectionManager
from wshub.auth import (
    InvalidCredential,
    Principal,
    Tickets,
    authenticate,
    bearer_header,
    cookie,
    first_of,
    ticket,
)
from wshub.auth.refusal import AUTHENTICATED_AT
from wshub.backends import MemoryOneTimeKeys, OneTimeKeys
from wshub.rejections import RejectionHandler
from wshub.testing import FakeClock, FaultySink, connect, live_server, refusal

ANA = Principal("ana", session_id=secret(), scopes=frozenset({"chat"}), claims={"role": "admin"})


def from_page(origin: str | None = "https://chat.example.com") -> HTTPConnection:
    """Build a request of a page, or of something else."""
    headers = [(b"origin", origin.encode())] if origin else []
    return HTTPConnection({"type": "websocket", "path": "/ws", "headers": headers})


class Box(MemoryOneTimeKeys):
    """
    Keys whose store can be looked into.

    Attributes:
        kept: What was put, with its time.
        broken: Whether it is away.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept: list[tuple[str, str, float]] = []
        self.broken = False

    async def put(self, key_hash: str, value: str, ttl: float) -> None:
        if self.broken:
            raise BackendUnavailable("Box", "it is away")
        self.kept.append((key_hash, value, ttl))
        await super().put(key_hash, value, ttl)

    async def take(self, key_hash: str) -> str | None:
        if self.broken:
            raise BackendUnavailable("Box", "it is away")
        return await super().take(key_hash)


async def test_a_ticket_is_good_once() -> None:
    """It stands for whom it was issued to, and then for nobody."""
    tickets = Tickets()
    value = await tickets.issue(ANA, from_page())
    principal = await tickets.redeem(value, from_page())
    assert principal == ANA
    assert principal.claims == ANA.claims
    with pytest.raises(InvalidCredential, match="never issued, or is spent"):
        await tickets.redeem(value, from_page())


async def test_many_ask_at_the_same_instant() -> None:
    """One of them gets in, a thousand times over."""
    tickets = Tickets()

    async def ask(value: str) -> bool:
        try:
            await tickets.redeem(value, from_page())
        except InvalidCredential:
            return False
        return True

    for _ in range(1000):
        value = await tickets.issue(ANA, from_page())
        assert sum(await asyncio.gather(ask(value), ask(value))) == 1


async def test_a_ticket_is_bound_to_its_origin() -> None:
    """From anywhere else it is refused, and spent."""
    tickets = Tickets()
    for there in ("https://evil.example", None, "https://chat.example.com:8443"):
        value = await tickets.issue(ANA, from_page())
        with pytest.raises(InvalidCredential, match="issued to origin"):
            await tickets.redeem(value, from_page(there))
        with pytest.raises(InvalidCredential, match="spent"):
            await tickets.redeem(value, from_page())
    app = await tickets.issue(ANA, from_page(None))
    assert (await tickets.redeem(app, from_page(None))).user == "ana"


async def test_a_ticket_is_short_lived(fake_clock: FakeClock) -> None:
    """It ends after its lifetime, and with the principal at the latest."""
    box = Box(clock=fake_clock)
    tickets = Tickets(box, lifetime=30)
    late, good = [await tickets.issue(ANA, from_page()) for _ in "12"]
    await fake_clock.advance(29)
    assert (await tickets.redeem(good, from_page())).user == "ana"
    await fake_clock.advance(2)
    with pytest.raises(InvalidCredential, match="too old"):
        await tickets.redeem(late, from_page())
    await tickets.issue(Principal("ana", expires_at=time.time() + 5), from_page())
    await tickets.issue(Principal("ana", expires_at=time.time() - 5), from_page())
    times = [ttl for *_, ttl in box.kept]
    assert times[:2] == [30, 30]
    assert 4 < times[2] <= 5
    assert 0 < times[3] < 0.01


async def test_only_a_hash_is_stored() -> None:
    """Tickets are long, random, fit for URLs, and not in the store; nor is whom they stand for."""
    box = Box()
    tickets = Tickets(box)
    values = {secret(await tickets.issue(ANA, from_page())) for _ in range(100)}
    assert len({kept for _, kept, _ in box.kept}) == len(values) == 100
    assert all(re.fullmatch(r"[\w-]{43}", value) for value in values)
    assert not any(value in str(box.kept) for value in values)
    for told in ("ana", "admin", str(ANA.session_id)):
        assert told not in str(box.kept)
        assert not any(told.encode() in bytes.fromhex(kept) for _, kept, _ in box.kept)


async def test_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Pages are told to come back: 503 for a request, also with a ticket, 1013 for a WebSocket."""
    box = Box()
    tickets = Tickets(box)
    box.broken = True
    with pytest.raises(HTTPException) as unavailable:
        await tickets.issue(ANA, from_page())
    assert (unavailable.value.status_code, unavailable.value.headers) == (503, {"Retry-After": "5"})
    with pytest.raises(WebSocketException) as refused:
        await tickets.redeem("x", from_page())
    assert refused.value.code == 1013
    assert caplog.text.count("it is away") == 2
    app = FastAPI()

    @app.get("/me")
    async def me(who: Annotated[Principal, Depends(authenticate(ticket(tickets)))]) -> str:
        raise AssertionError("nobody can say who that is")  # pragma: no cover

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.get("/me?ticket=x")
    assert (answer.status_code, answer.json()) == (503, {"detail": "try again later"})


@pytest.mark.parametrize("value", ["", "7", "{}", "null", "00" * 31, "00" * 99, "\ufffd"])
async def test_a_store_with_something_else_in_it(value: str) -> None:
    """What nobody issued lets nobody in."""

    class Forged(MemoryOneTimeKeys):
        async def take(self, key_hash: str) -> str | None:
            assert len(key_hash) == 64
            return value

    with pytest.raises(InvalidCredential, match="its store is corrupt"):
        await Tickets(Forged()).redeem("x", from_page(None))


async def test_what_a_store_has_it_cannot_change_or_move() -> None:
    """Not a bit of it, and not to the key of another ticket."""
    box = Box()
    tickets = Tickets(box)
    one, other = [await tickets.issue(ANA, from_page()) for _ in "12"]
    kept = {key: value for key, value, _ in box.kept}
    first, second = kept
    for forged in (kept[second], *(flipped(kept[first], bit) for bit in range(0, 800, 7))):
        box._values[first] = forged
        with pytest.raises(InvalidCredential, match="its store is corrupt"):
            await tickets.redeem(one, from_page())
    assert (await tickets.redeem(other, from_page())).user == "ana"


def flipped(value: str, bit: int) -> str:
    """Return `value`, which is hexadecimal, with one bit changed."""
    data = bytearray.fromhex(value)
    data[bit // 8] ^= 1 << bit % 8
    return data.hex()


@pytest.mark.parametrize("whom", ["user", "session"])
async def test_who_was_dismissed_since_a_ticket_was_issued(whom: str) -> None:
    """Is out as soon as it is used, as if the credential itself had been shown."""
    manager, tickets = ConnectionManager(), Tickets()
    session = secret()
    before = await tickets.issue(Principal("ana", session_id=session), from_page())
    await (
        manager.disconnect_user("ana") if whom == "user" else manager.disconnect_session(session)
    )
    after = await tickets.issue(Principal("ana", session_id=session), from_page())
    for value, is_in in ((before, False), (after, True)):
        sink = FaultySink()
        sink.websocket.scope["headers"] = from_page().scope["headers"]
        principal = await tickets.redeem(value, sink.websocket)
        async with manager.connection(sink.websocket, principal=principal) as connection:
            assert (connection.closed is None) is is_in


async def test_tickets_for_tickets_come_to_an_end() -> None:
    """Each is worth less, as dismissals are remembered from the log-in on."""
    box = Box()
    tickets, page = Tickets(box, lifetime=240), from_page()
    page.scope[AUTHENTICATED_AT] = time.monotonic() - 200
    await tickets.issue(ANA, page)
    assert 39 < box.kept[-1][2] <= 40
    page.scope[AUTHENTICATED_AT] = time.monotonic() - 240
    with pytest.raises(HTTPException) as refused:
        await tickets.issue(ANA, page)
    assert (refused.value.status_code, refused.value.detail) == (401, "log in again")


async def test_claims_that_json_cannot_express() -> None:
    """They are told where the ticket is issued."""
    for claim, error in ((object(), TypeError), (float("nan"), ValueError)):
        with pytest.raises(error):
            await Tickets().issue(Principal("ana", claims={"x": claim}), from_page())


async def test_keys_in_memory_are_bounded(fake_clock: FakeClock) -> None:
    """So many at a time, spent ones too, until their time is over; each once."""
    keys: OneTimeKeys = MemoryOneTimeKeys(max_keys=2, clock=fake_clock)
    await keys.put("a", "1", 10)
    assert await keys.take("a") == "1"
    await keys.put("b", "2", 20)
    with pytest.raises(BackendUnavailable, match="it holds 2 keys"):
        await keys.put("c", "3", 10)
    await fake_clock.advance(10)
    await keys.put("c", "3", 20)
    with pytest.raises(ValueError, match="there already"):
        await keys.put("c", "4", 10)
    await fake_clock.advance(10)
    assert await keys.take("b") is None
    assert await keys.take("c") == "3"
    for ttl in (0, float("inf")):
        with pytest.raises(ValueError, match="ttl must be"):
            await keys.put("d", "5", ttl)
    with pytest.raises(ValueError, match="max_keys must be"):
        MemoryOneTimeKeys(max_keys=0)
    for lifetime in (0, 241, float("nan")):
        with pytest.raises(ValueError, match="lifetime must be 0 to 240 seconds"):
            Tickets(lifetime=lifetime)


async def test_from_the_log_in_to_the_websocket(ws: str) -> None:
    """A page fetches a ticket with its cookie, and connects with it; cookies alone do not."""
    session = secret()

    async def find_session(value: str) -> Principal | None:
        return Principal("ana") if value == session else None

    manager, tickets, app = ConnectionManager(), Tickets(), FastAPI()
    app.add_exception_handler(WebSocketException, RejectionHandler())
    by_cookie = authenticate(cookie("session"), verify=find_session)
    by_ticket = authenticate(first_of(ticket(tickets), bearer_header()), verify=find_session)

    @app.post("/tickets")
    async def issue(request: Request, who: Annotated[Principal, Depends(by_cookie)]) -> str:
        return await tickets.issue(who, request)

    @app.websocket("/ws")
    async def chat(websocket: WebSocket, who: Annotated[Principal, Depends(by_ticket)]) -> None:
        async with manager.connection(websocket, principal=who) as connection:
            await connection.send(f"hello {who.user}")

    async with (
        live_server(app, ws=ws, access_log=False) as server,
        httpx.AsyncClient(base_url=server.http) as http,
    ):
        headers = {"Cookie": f"session={session}"}
        here, elsewhere = {"Origin": server.http}, {"Origin": "https://evil.example"}
        assert (await http.post("/tickets", headers=headers | elsewhere)).status_code == 403
        value = (await http.post("/tickets", headers=headers | here)).json()
        async with connect(f"{server.ws}/ws?ticket={value}", origin=server.http) as client:
            assert await client.receive() == "hello ana"
        for bad in (f"ticket={value}", "ticket=", "ticket=x", ""):
            url = f"{server.ws}/ws?{bad}"
            told = await refusal(url, origin=server.http, additional_headers=headers)
            assert told.status == 401
