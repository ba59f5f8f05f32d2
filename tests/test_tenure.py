"""A connection lives no longer than what its user may: expiry, refresh, revalidation, logout."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from tests.secrecy import secret
from wshub import (
    AccessDenied,
    BackendUnavailable,
    Connection,
    ConnectionClosed,
    ConnectionManager,
    InvalidUserId,
    OtherUser,
    Rejection,
    Revalidation,
)
from wshub._dismissals import Dismissals
from wshub.auth import Principal, authenticate, bearer_header
from wshub.auth.refusal import AUTHENTICATED_AT
from wshub.backends import RedisBackend
from wshub.messages import Dismissal
from wshub.testing import FakeClock, FaultySink, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Check = Callable[[Principal], Awaitable[Principal | None]]


def ends_in(seconds: float, user: str = "ana", session: str | None = None) -> Principal:
    """Return a principal that expires in so many seconds."""
    return Principal(user, session_id=session, expires_at=time.time() + seconds)


def got_close(sink: FaultySink) -> tuple[int, str] | None:
    """Return the close frame that a peer got."""
    closes = [event for event in sink.sent if event["type"] == "websocket.close"]
    return (closes[0]["code"], closes[0]["reason"]) if closes else None


class Guest:
    """A connection of a principal over a sink, that lasts as long as it may."""

    def __init__(self, manager: ConnectionManager, principal: Principal) -> None:
        self.sink = FaultySink()
        self.task = asyncio.create_task(self._stay(manager, principal))

    async def _stay(self, manager: ConnectionManager, principal: Principal) -> None:
        async with manager.connection(self.sink.websocket, principal=principal) as connection:
            self.connection: Connection = connection
            await connection.receive()

    async def arrives(self) -> Connection:
        await until(lambda: hasattr(self, "connection"))
        return self.connection

    async def leaves(self) -> None:
        self.connection.abort()
        await self.task


async def test_an_expired_token_closes(fake_clock: FakeClock) -> None:
    """At its very time, with 3000 and a reason; the user is the principal's."""
    manager = ConnectionManager(clock=fake_clock)
    principal = ends_in(60)
    guest = Guest(manager, principal)
    connection = await guest.arrives()
    assert (connection.user, connection.principal) == ("ana", principal)
    await fake_clock.advance(59)
    assert got_close(guest.sink) is None
    await fake_clock.advance(1.1)
    assert got_close(guest.sink) == (3000, "token expired")
    await guest.task
    assert fake_clock.waiting == 0


async def test_a_token_of_many_days(fake_clock: FakeClock) -> None:
    """It is waited for in steps that every event loop can take."""
    manager = ConnectionManager(clock=fake_clock)
    guest = Guest(manager, ends_in(3 * 86_400))
    await guest.arrives()
    await fake_clock.advance(3 * 86_400 - 1)
    assert got_close(guest.sink) is None
    await fake_clock.advance(1.1)
    assert got_close(guest.sink) == (3000, "token expired")
    await guest.task


async def test_a_refreshed_one_stays(fake_clock: FakeClock) -> None:
    """Until the new token expires, or without an end; one that has expired ends it at once."""
    manager = ConnectionManager(clock=fake_clock)
    guest = Guest(manager, ends_in(60))
    connection = await guest.arrives()
    later = ends_in(120)
    connection.refresh(later)
    await fake_clock.advance(100)
    assert connection.principal is later
    connection.refresh(Principal("ana"))
    await fake_clock.advance(1000)
    assert connection.closed is None
    with pytest.raises(OtherUser, match="the user that it belongs to") as refused:
        connection.refresh(Principal("ben"))
    assert isinstance(refused.value, ValueError)
    assert (refused.value.code, refused.value.connection_id) == (3003, connection.id)
    connection.refresh(ends_in(-1))
    assert got_close(guest.sink) == (3000, "token expired")
    with pytest.raises(ConnectionClosed):
        connection.refresh(Principal("ana"))
    await guest.task


async def test_a_connection_without_an_end_gets_one(fake_clock: FakeClock) -> None:
    """By refresh, also one that was opened with a user's id alone."""
    manager = ConnectionManager(clock=fake_clock)
    sink = FaultySink()
    async with manager.connection(sink.websocket, user="ana") as connection:
        assert connection.principal is None
        connection.refresh(Principal("ana"))
        assert fake_clock.waiting == 0
        connection.refresh(ends_in(5))
        await fake_clock.advance(6)
        assert got_close(sink) == (3000, "token expired")


async def test_nobody_watches_over_who_was_lost_in_the_handshake(fake_clock: FakeClock) -> None:
    """No timer is left that would hold on to it."""
    sink = FaultySink()
    sink.fault = OSError("gone")
    manager = ConnectionManager(clock=fake_clock, handler_grace=None)
    async with manager.connection(sink.websocket, principal=ends_in(60)) as connection:
        assert connection.closed is not None
        assert fake_clock.waiting == 0


async def test_who_has_expired_is_not_accepted() -> None:
    """And neither is one of whom two things are said."""
    manager = ConnectionManager()
    sink = FaultySink()
    with pytest.raises(Rejection, match="token expired"):
        await manager.connect(sink.websocket, principal=ends_in(-1))
    with pytest.raises(TypeError, match="leave user= out"):
        await manager.connect(sink.websocket, user="ben", principal=Principal("ana"))
    assert sink.sent == []


async def test_what_a_verifier_says_may_be_too_late() -> None:
    """A principal that has expired is refused, whatever its verifier thinks."""

    async def verify(token: str) -> Principal:
        return ends_in(-1)

    scope = {"type": "http", "path": "/", "headers": [(b"authorization", b"Bearer x")]}
    with pytest.raises(HTTPException, match="token expired"):
        await authenticate(bearer_header(), verify=verify)(connection=HTTPConnection(scope))


async def test_revalidation(fake_clock: FakeClock) -> None:
    """Every so often a hook is asked: a newer principal goes on, None closes with 3000."""
    answers = [Principal("ana", scopes=frozenset({"read"})), Principal("ana"), None]
    asked: list[Principal] = []

    async def check(principal: Principal) -> Principal | None:
        asked.append(principal)
        return answers[len(asked) - 1]

    manager = ConnectionManager(
        clock=fake_clock, revalidation=Revalidation(check=check, interval=100)
    )
    first = Principal("ana")
    guest = Guest(manager, first)
    connection = await guest.arrives()
    await fake_clock.advance(89)
    assert asked == []
    await fake_clock.advance(11)
    assert asked == [first]
    assert connection.principal is answers[0]
    await fake_clock.advance(100)
    assert got_close(guest.sink) is None
    await fake_clock.advance(100)
    assert asked == [first, *answers[:2]]
    assert got_close(guest.sink) == (3000, "log in again")
    await guest.task
    assert fake_clock.waiting == 0


async def test_a_revalidation_that_fails(
    fake_clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error, a wait without end or another's principal is logged, and asked again later."""
    times = 0

    async def check(principal: Principal) -> Principal | None:
        nonlocal times
        times += 1
        if times == 1:
            raise OSError("no database")
        if times == 2:
            await asyncio.Event().wait()
        return Principal("ben") if times == 3 else None

    manager = ConnectionManager(
        clock=fake_clock, revalidation=Revalidation(check=check, interval=100, timeout=5)
    )
    guest = Guest(manager, Principal("ana"))
    await guest.arrives()
    await fake_clock.advance(320)
    assert times == 3
    assert got_close(guest.sink) is None
    assert caplog.text.count("cannot revalidate connection") == 3
    await fake_clock.advance(100)
    assert got_close(guest.sink) == (3000, "log in again")
    await guest.task


@pytest.mark.parametrize("is_good", [True, False])
async def test_a_refresh_during_a_revalidation(fake_clock: FakeClock, *, is_good: bool) -> None:
    """What the client brought meanwhile is newer than the answer, whatever that is."""
    gate = asyncio.Event()

    async def check(principal: Principal) -> Principal | None:
        await gate.wait()
        return principal if is_good else None

    manager = ConnectionManager(
        clock=fake_clock, revalidation=Revalidation(check=check, interval=10)
    )
    guest = Guest(manager, Principal("ana"))
    connection = await guest.arrives()
    await fake_clock.advance(10)
    newer = Principal("ana", scopes=frozenset({"read"}))
    connection.refresh(newer)
    gate.set()
    await fake_clock.advance(0)
    assert connection.principal is newer
    await guest.leaves()


async def test_a_connection_that_ends_during_a_revalidation(fake_clock: FakeClock) -> None:
    """Nobody waits for the answer any more."""
    cancelled = asyncio.Event()

    async def check(principal: Principal) -> Principal | None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return principal  # pragma: no cover (the wait has no other end)

    manager = ConnectionManager(
        clock=fake_clock, revalidation=Revalidation(check=check, interval=10)
    )
    guest = Guest(manager, Principal("ana"))
    await guest.arrives()
    await fake_clock.advance(10)
    await guest.leaves()
    await until(cancelled.is_set)
    assert fake_clock.waiting == 0


@pytest.mark.parametrize("name", ["interval", "timeout"])
def test_what_is_no_revalidation(name: str) -> None:
    """Its numbers are positive."""

    async def check(principal: Principal) -> Principal | None:
        raise AssertionError("never asked")  # pragma: no cover

    with pytest.raises(ValueError, match=f"{name} must be"):
        Revalidation(check=check, **{name: 0})


async def test_a_logout_closes_all_tabs_of_its_session() -> None:
    """And none of another log-in of the same user."""
    manager = ConnectionManager()
    here, there = secret(), secret()
    tabs = [Guest(manager, Principal("ana", session_id=here)) for _ in range(2)]
    other = Guest(manager, Principal("ana", session_id=there))
    without = Guest(manager, Principal("ana"))
    for guest in (*tabs, other, without):
        await guest.arrives()
    await manager.disconnect_session(here)
    assert [got_close(tab.sink) for tab in tabs] == [(3000, "logged out")] * 2
    assert got_close(other.sink) is None
    await manager.disconnect_session(there, code=4000, reason="bye")
    assert got_close(other.sink) == (4000, "bye")
    assert got_close(without.sink) is None
    await manager.disconnect_session("nobody's")
    with pytest.raises(ValueError, match="1006"):
        await manager.disconnect_session(here, code=1006)
    await without.leaves()
    await asyncio.gather(*(guest.task for guest in (*tabs, other)))
    assert manager._hub.registry._sessions == {}


@pytest.mark.parametrize("whom", ["user", "session"])
async def test_a_dismissal_while_the_broker_is_away(whom: str) -> None:
    """Fails, and closes what this worker has."""
    manager = ConnectionManager(backend=RedisBackend())  # which nobody has started
    guest = Guest(manager, Principal("ana", session_id="tab"))
    await guest.arrives()
    with pytest.raises(BackendUnavailable):
        await (
            manager.disconnect_user("ana") if whom == "user" else manager.disconnect_session("tab")
        )
    assert got_close(guest.sink) == ((1008, "") if whom == "user" else (3000, "logged out"))
    await guest.task


async def test_a_session_that_is_renewed() -> None:
    """After a refresh the connection belongs to the new session, and no longer to the old."""
    manager = ConnectionManager()
    guest = Guest(manager, Principal("ana", session_id="first"))
    connection = await guest.arrives()
    for session in ("first", "second", None, "third"):
        connection.refresh(Principal("ana", session_id=session))
    for session in ("first", "second"):
        await manager.disconnect_session(session)
    assert got_close(guest.sink) is None
    manager.disconnect(connection.websocket)
    connection.refresh(Principal("ana", session_id="fourth"))
    await manager.disconnect_session("fourth")
    assert got_close(guest.sink) is None
    await guest.leaves()
    assert manager._hub.registry._sessions == {}


@pytest.mark.parametrize("by", ["session", "user"])
async def test_a_logout_during_the_handshake(by: str) -> None:
    """Who was authenticated before it and registers after it is closed; who comes later stays."""
    manager = ConnectionManager()
    principal = Principal("ana", session_id="tab")
    early, late = FaultySink(), FaultySink()
    early.websocket.scope[AUTHENTICATED_AT] = time.monotonic()
    if by == "session":
        await manager.disconnect_session("tab", code=4000, reason="gone")
    else:
        await manager.disconnect_user("ana", code=4000, reason="gone")
    async with manager.connection(early.websocket, principal=principal) as connection:
        assert connection.closed is not None
        assert got_close(early) == (4000, "gone")
    async with manager.connection(late.websocket, principal=principal) as connection:
        assert connection.closed is None


async def test_a_logout_while_a_new_token_is_looked_at() -> None:
    """The connection goes on with that session only to be closed with it; the old one may go on."""
    manager = ConnectionManager()
    await manager.disconnect_session("first")  # whose user has logged in anew since
    guest = Guest(manager, Principal("ana", session_id="first"))
    connection = await guest.arrives()
    await manager.disconnect_session("second", code=4000, reason="gone")
    connection.refresh(Principal("ana", session_id="first", expires_at=time.time() + 60))
    assert got_close(guest.sink) is None
    connection.refresh(Principal("ana", session_id="second"))
    assert got_close(guest.sink) == (4000, "gone")
    await guest.leaves()


def test_dismissals_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five minutes, and the oldest once there are too many."""
    now = 100.0
    monkeypatch.setattr("wshub._dismissals.monotonic", lambda: now)
    monkeypatch.setattr("wshub._dismissals.MAX_DISMISSALS", 2)
    dismissals = Dismissals()
    orders = [Dismissal("user", name, 3000, "") for name in "abc"]
    for order in orders:
        dismissals.note(order)
    assert dismissals.find("user", "a", 0) is None
    assert dismissals.find("user", "c", 0) is orders[2]
    assert dismissals.find("session", "c", 0) is None
    now = 401.0
    dismissals.note(orders[2])
    assert dismissals.find("user", "b", 0) is None
    assert dismissals.find("user", "c", 401) is orders[2]
    assert dismissals.find("user", "c", 402) is None


def test_a_principal_is_checked() -> None:
    """Its user has a name, its scopes are several, its end is a time."""
    with pytest.raises(InvalidUserId):
        Principal("")
    with pytest.raises(TypeError, match="session_id is a string"):
        Principal("ana", session_id=42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="frozenset"):
        Principal("ana", scopes="read")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        Principal("ana", expires_at=float("nan"))
    scopes = frozenset({"read", "write"})
    assert Principal("ana", scopes=["write", "read"]).scopes == scopes  # type: ignore[arg-type]
    assert Principal("ana", scopes=scopes).has_scopes(["read"])
    assert not Principal("ana").has_scopes(["read"])


def test_a_principal_keeps_its_secrets() -> None:
    """Neither its session nor its claims are in its text, and claims cannot be changed."""
    session, claim = secret(), secret()
    principal = Principal("ana", session_id=session, claims={"token": claim})
    assert session not in repr(principal)
    assert claim not in str(principal)
    assert hash(principal) == hash(Principal("ana", session_id=session))
    with pytest.raises(TypeError):
        principal.claims["token"] = "x"  # type: ignore[index]
    assert Principal.from_json(principal.to_json()) == principal
    assert Principal.from_json(principal.to_json()).claims == {"token": claim}


async def test_an_expiry_is_logged_by_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Who was closed, and why."""
    caplog.set_level(logging.INFO)
    guest = Guest(ConnectionManager(), ends_in(0.05))
    connection = await guest.arrives()
    await guest.task
    assert f"closing connection {connection.id}: token expired" in caplog.text


def test_access_denied_says_how_to_fix_it() -> None:
    """To the app; the client learns what it may not do."""
    denied = AccessDenied("publish", "attic\n")
    assert (denied.code, denied.reason) == (3003, "not allowed to publish")
    assert str(denied) == (
        r"not allowed to publish in room 'attic\n'; "
        "authorize_publish of the manager has to return True"
    )
