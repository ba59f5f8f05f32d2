"""Tickets, log-outs and tokens that expire, with two workers behind one Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus

from tests.brokers.kinds import KINDS
from tests.brokers.processes import Server, running
from tests.secrecy import KEY, secret
from wshub import BackendUnavailable
from wshub.auth import InvalidCredential, Principal, Tickets
from wshub.backends import RedisOneTimeKeys
from wshub.testing import connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tests.brokers.kinds import Broker, Kind, OwnBroker

pytestmark = pytest.mark.one_loop

ORIGIN = "https://chat.example.com"


@pytest.fixture(scope="module")
def url(started: Callable[[Kind], Broker]) -> str:
    """A Redis server that other tests use, too."""
    return started(KINDS[0]).url


@pytest.fixture
async def keys(url: str, prefix: str) -> AsyncGenerator[list[RedisOneTimeKeys]]:
    """The keys of two workers."""
    both = [RedisOneTimeKeys(url, prefix=prefix) for _ in range(2)]
    yield both
    for one in both:
        await one.stop()


@pytest.fixture(scope="module")
def workers(url: str) -> Generator[list[Server], None, None]:
    """Two workers, each with a port of its own."""
    with running(url, {"prefix": "authworkers"}, number=2, app="auth_app") as servers:
        yield servers


def handshake() -> HTTPConnection:
    headers = [(b"origin", ORIGIN.encode())]
    return HTTPConnection({"type": "websocket", "path": "/ws", "headers": headers})


def bearer(session: str = "s", seconds: float = 60) -> dict[str, str]:
    """Return the header of somebody who has just logged in."""
    claims = {"sub": "ana", "sid": session, "exp": int(time.time() + seconds)}
    return {"Authorization": f"Bearer {secret(jwt.encode(claims, KEY))}"}


async def test_two_workers_asked_at_the_same_instant(keys: list[RedisOneTimeKeys]) -> None:
    """One of them takes a ticket and the other refuses it, a thousand times over."""
    workers = [Tickets(one) for one in keys]

    async def ask(worker: Tickets, ticket: str) -> bool:
        try:
            return (await worker.redeem(ticket, handshake())).user == "ana"
        except InvalidCredential:
            return False

    for _ in range(1000):
        ticket = await workers[0].issue(Principal("ana"), handshake())
        assert sum(await asyncio.gather(*(ask(worker, ticket) for worker in workers))) == 1


async def test_a_key_in_redis(keys: list[RedisOneTimeKeys]) -> None:
    """It is kept for its time, once, under a name with the prefix, and never overwritten."""
    one, two = keys
    await one.put("a", "é", 60)
    with pytest.raises(ValueError, match="there already"):
        await two.put("a", "other", 60)
    assert await two.take("a") == "é"
    assert await one.take("a") is None
    await one.put("b", "short", 0.0001)
    async with asyncio.timeout(5):
        while await two.take("b") is not None:  # pragma: no cover (it takes a millisecond)
            await asyncio.sleep(0.001)
    for ttl in (0, float("inf")):
        with pytest.raises(ValueError, match="ttl must be"):
            await one.put("c", "x", ttl)
    assert repr(one).startswith("<RedisOneTimeKeys 't")


@pytest.mark.parametrize(
    ("options", "text"),
    [({"prefix": "a:b"}, "prefix must be"), ({"timeout": 0}, "timeout must be")],
)
def test_what_are_no_keys(options: dict[str, Any], text: str) -> None:
    """Mistakes are told when they are made."""
    with pytest.raises(ValueError, match=text):
        RedisOneTimeKeys(**options)


async def test_keys_over_an_outage(prefix: str) -> None:
    """A server that was restarted is found again; while it is away nothing is taken or kept."""
    server: OwnBroker = KINDS[0].launch()
    server.start()
    keys = RedisOneTimeKeys(server.url, prefix=prefix, timeout=1)
    try:
        await keys.put("a", "1", 60)
        server.kill()
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="RedisOneTimeKeys"):
                await keys.put("b", "2", 60)
            with pytest.raises(BackendUnavailable):
                await keys.take("a")
        server.start()
        await keys.put("b", "2", 60)
        server.pause()
        waiting = asyncio.create_task(keys.take("b"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        server.resume()
        assert await keys.take("never") is None  # and not the answer to the one before
        server.kill()
        server.start()
        await keys.put("c", "3", 60)  # its connection went meanwhile
        assert await keys.take("c") == "3"
    finally:
        await keys.stop()
        server.stop()


async def test_a_ticket_spent_on_one_is_refused_by_the_other(workers: list[Server]) -> None:
    """Also if a page asks both at once."""
    one, two = workers
    headers = bearer() | {"Origin": ORIGIN}
    statuses: list[int] = []

    async def enters(server: Server, ticket: str) -> bool:
        url = f"ws://127.0.0.1:{server.port}/private?ticket={ticket}"
        try:
            async with connect(url, origin=ORIGIN) as client:
                return await client.receive() == "hello ana"
        except InvalidStatus as refused:
            statuses.append(refused.response.status_code)
            return False

    for _ in range(20):
        ticket = await one.request("POST", "/ticket", headers=headers)
        assert sum(await asyncio.gather(enters(one, ticket), enters(two, ticket))) == 1
        assert not await enters(one, ticket)
    assert statuses == [401] * 40


async def test_a_log_out_closes_on_all_workers(workers: list[Server]) -> None:
    """Within a second, all tabs of the session and no other."""
    urls = [f"ws://127.0.0.1:{server.port}/private" for server in workers]
    async with (
        connect(urls[0], additional_headers=bearer("here")) as here,
        connect(urls[1], additional_headers=bearer("here")) as there,
        connect(urls[1], additional_headers=bearer("other")) as other,
    ):
        for client in (here, there, other):
            assert await client.receive() == "hello ana"
        begun = time.monotonic()
        await workers[0].request("DELETE", "/session", headers=bearer("here"))
        assert await here.closed() == await there.closed() == (3000, "logged out")
        assert time.monotonic() - begun < 1
        await other.send(bearer("other")["Authorization"].removeprefix("Bearer "))
        assert await other.receive() == "refreshed"
        begun = time.monotonic()
        query = {"code": "3003", "reason": "banned"}
        await workers[0].request("DELETE", "/user/ana", params=query)
        assert await other.closed() == (3003, "banned")
        assert time.monotonic() - begun < 1


async def test_a_token_that_expires(workers: list[Server]) -> None:
    """It closes within a second on either worker, unless it was refreshed."""
    urls = [f"ws://127.0.0.1:{server.port}/private" for server in workers]
    soon = bearer(seconds=3)
    ends = jwt.decode(soon["Authorization"].split()[1], KEY, algorithms=["HS256"])["exp"]
    async with (
        connect(urls[0], additional_headers=soon) as expiring,
        connect(urls[1], additional_headers=soon) as refreshed,
    ):
        assert await expiring.receive() == await refreshed.receive() == "hello ana"
        newer = bearer()["Authorization"].removeprefix("Bearer ")
        assert await refreshed.ask(newer) == "refreshed"
        assert await expiring.closed() == (3000, "token expired")
        assert 0 <= time.time() - ends < 1
        assert await refreshed.ask(newer) == "refreshed"
