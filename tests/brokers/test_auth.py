"""Tickets, log-outs and tokens that expire, with two workers behind each kind of server."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus

from tests.brokers.kinds import SIMPLE
from tests.brokers.processes import Server, running
from tests.secrecy import KEY, secret
from wshub.testing import connect

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.brokers.kinds import Broker

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.parametrize(
        "kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True
    ),
]

ORIGIN = "https://chat.example.com"


@pytest.fixture(scope="module")
def workers(broker: Broker) -> Generator[list[Server], None, None]:
    """Two workers, each with a port of its own."""
    with running(broker.url, {"prefix": "authworkers"}, number=2, app="auth_app") as servers:
        yield servers


def bearer(session: str = "s", seconds: float = 60) -> dict[str, str]:
    """Return the header of somebody who has just logged in."""
    claims = {"sub": "ana", "sid": session, "exp": int(time.time() + seconds)}
    return {"Authorization": f"Bearer {secret(jwt.encode(claims, KEY))}"}


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


async def test_a_ticket_is_taken_by_one_of_two_workers_a_thousand_times(
    workers: list[Server],
) -> None:
    """Two processes, asked at the same instant."""
    headers = bearer() | {"Origin": ORIGIN}
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}")
            )
            for server in workers
        ]
        for _ in range(1000):
            ticket = secret((await one.post("/ticket", headers=headers)).json())
            asked = (
                http.get("/me", params={"ticket": ticket}, headers={"Origin": ORIGIN})
                for http in (one, two)
            )
            answers = await asyncio.gather(*asked)
            assert sorted(answer.status_code for answer in answers) == [200, 401]


async def test_a_ticket_of_who_was_banned_since(workers: list[Server]) -> None:
    """Lets nobody stay, on a worker that had no connection of that user to close."""
    for server in workers:
        ticket = await server.request("POST", "/ticket", headers=bearer() | {"Origin": ORIGIN})
        query = {"code": "3003", "reason": "banned"}
        await workers[0].request("DELETE", "/user/ana", params=query)
        url = f"ws://127.0.0.1:{workers[1].port}/private?ticket={ticket}"
        async with connect(url, origin=ORIGIN) as client:
            assert await client.closed() == (3003, "banned")


async def test_a_log_out_closes_on_all_workers(workers: list[Server]) -> None:
    """Within a second, all tabs of the session and no other."""
    urls = [f"ws://127.0.0.1:{server.port}/private" for server in workers]
    async with (
        connect(urls[0], additional_headers=bearer("here")) as here,
        connect(urls[1], additional_headers=bearer("here")) as there,
        connect(urls[1], additional_headers=bearer("other")) as other,
        connect(urls[0], additional_headers=bearer("third")) as third,
    ):
        for client in (here, there, other, third):
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
        assert await other.closed() == await third.closed() == (3003, "banned")
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
