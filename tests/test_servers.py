"""Rows of `test_failures.py` on servers other than uvicorn."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.servers import SERVERS, ChatServer
from wshub.testing import StalledClient, connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LATENCY = 5.0
"""Seconds in which a client has its answer; where nobody stalls it takes milliseconds."""

OVER = [
    "ConnectionClosed",  # send_personal_message
    "ConnectionClosed",  # send
    "ConnectionClosed",  # receive
    "ConnectionClosed",  # join
    "fine",  # close
    "fine",  # broadcast
] * 2
"""What comes of using a connection that is over, in every way that the chat tries."""


@pytest.fixture(params=SERVERS)
async def server(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> AsyncGenerator[ChatServer, None]:
    async with SERVERS[request.param]() as server:
        yield server
    assert "Traceback" not in capfd.readouterr().err


async def test_a_dead_peer_breaks_nobody_elses_broadcast(server: ChatServer) -> None:
    """Row 1: B stays, C gets it, A is gone before its handler ends, D who comes late is well."""
    async with connect(f"{server.ws}/ws/a") as a, connect(f"{server.ws}/ws/b") as b:
        async with connect(f"{server.ws}/ws/c") as c:
            await server.reaches(lambda state: state["connections"] == 3)
            await a.send("wait")
            await server.reaches(lambda state: state["received"] == 1)
            a.reset()
            for word in ("one", "two"):
                assert await b.ask(word) == f"b: {word}"
                assert await c.receive() == f"b: {word}"
            await server.reaches(lambda state: state["connections"] == 2)
            async with connect(f"{server.ws}/ws/d") as d:
                assert await d.ask("late") == "d: late"
                assert await b.receive() == "d: late"
            assert await b.receive() == "d left"
        assert await b.receive() == "c left"
        assert "a" not in (await server.state())["outcomes"]


async def test_a_peer_that_left_is_used(server: ChatServer) -> None:
    """Row 6: whatever is done to it raises ConnectionClosed, every time, or does nothing."""
    async with connect(f"{server.ws}/ws/a") as a, connect(f"{server.ws}/ws/b") as b:
        await a.send("wait")
        await server.reaches(lambda state: state["received"] == 1)
        a.reset()
        await server.reaches(lambda state: state["connections"] == 1)
        await server.post("/release")
        state = await server.reaches(lambda state: state["outcomes"])
        assert state["outcomes"]["a"] == OVER
        for expected in ("is anyone there?", "is anyone there?", "a left"):
            assert await b.receive() == expected


async def test_a_peer_that_was_closed_is_used(server: ChatServer) -> None:
    """Row 5: the first close counts, a second does nothing, all else raises ConnectionClosed."""
    async with connect(f"{server.ws}/ws/a") as a, connect(f"{server.ws}/ws/b") as b:
        await a.send("close")
        assert await a.closed() == (4000, "enough")
        state = await server.reaches(lambda state: state["outcomes"])
        assert state["outcomes"]["a"] == OVER
        for expected in ("is anyone there?", "is anyone there?", "a left"):
            assert await b.receive() == expected


@pytest.mark.parametrize("cause", ["overflow", "send_timeout"])
async def test_a_stalled_peer_delays_nobody(server: ChatServer, cause: str) -> None:
    """Row 11: others have their answers meanwhile, and it is gone at once when it is cut off."""
    async with (
        StalledClient(f"{server.ws}/ws/stalled"),
        connect(f"{server.ws}/ws/other", max_size=None, compression=None) as other,
    ):
        await server.reaches(lambda state: state["connections"] == 2)
        sent = 0
        while not (await server.state())["queued"]:
            await server.post("/broadcast?size=500000&count=1")
            sent += 1
        if cause == "overflow":
            await server.post("/broadcast?size=10&count=110&pause=0.002")
            sent += 110
        while sent:
            sent -= await other.receive() != "stalled left"
        waits: list[float] = []
        state = await server.state()
        # On a machine that has much else to do, its time may be over before its outbox is full.
        while not sum(state["evicted"].values()):
            asked = time.monotonic()
            assert await other.ask("hello") in {"other: hello", "stalled left"}
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.03)  # or what it blocks would overflow before its time is over
            state = await server.state()
            assert state["connections"] == 1 + (not sum(state["evicted"].values()))
        assert max(waits, default=0) < LATENCY
        assert state["evicted"][cause] + state["evicted"]["send_timeout"] > 0
        assert sum(state["evicted"].values()) == 1
        await server.reaches(lambda state: state["queued"] == 0)
    await server.reaches(lambda state: state["connections"] == 0)


@pytest.mark.parametrize(("count", "size"), [(100, 64), (100, 100_000)])
async def test_a_burst_of_broadcasts_evicts_nobody_who_reads(
    server: ChatServer, count: int, size: int
) -> None:
    """Row 11: whoever reads is no stalled peer, in a burst as long as its outbox."""
    async with connect(f"{server.ws}/ws/a", max_size=None, compression=None) as client:
        await server.reaches(lambda state: state["connections"] == 1)
        await server.post(f"/broadcast?size={size}&count={count}")
        for _ in range(count):
            assert len(await client.receive()) == size
        assert sum((await server.state())["evicted"].values()) == 0
