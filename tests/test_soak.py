"""Clients come, chat, stall, fall silent, break off and attack for a long time: nothing stays."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.soak_clients import Crowd, Life
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")

ROOT = Path(__file__).parents[1]

SERVERS = [
    ("websockets-sansio", "asyncio"),
    ("wsproto", "uvloop"),
    ("websockets", "asyncio"),
]
if find_spec("wshub.uvicorn"):  # pragma: no branch  (it can be taken out)
    SERVERS += [("wshub.uvicorn:FanoutProtocol", loop) for loop in ("asyncio", "uvloop")]
"""Implementations and event loops that run side by side, in processes of their own."""

SEED = 3
SIZE = 20
"""Clients of each server at a time."""

WARM_UP = 0.05, 2.0
"""
Part of the time, and seconds at least, in which the same goes on before anything is measured.

Caches fill meanwhile, and the allocator's arenas grow to their size.
"""

TOLERANCE = 8 * 1024 * 1024
"""Bytes by which the resident memory may differ: what the allocator keeps is not ours to say."""

LATENCY = 5.0
"""Seconds in which a bystander has its answer, on a machine that has much else to do."""

SOAK_SECONDS = float(os.environ.get("WSHUB_SOAK_SECONDS", "600"))

logger = logging.getLogger(__name__)


class Server:
    """A server of the soak, as the test sees it."""

    def __init__(self, port: int) -> None:
        self.ws = f"ws://127.0.0.1:{port}"
        self._http = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> Any:
        # A connection that is kept would count as one of the server's descriptors.
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            answer = await client.get(self._http + path, headers={"Connection": "close"})
        return answer.raise_for_status().json()

    async def comes_to_rest(self) -> dict[str, Any]:
        """Wait until all connections are over and settled; return the state."""
        at_rest = False
        async with asyncio.timeout(30):
            while not at_rest:
                await asyncio.sleep(0.1)
                state: dict[str, Any] = await self.get("/state")
                at_rest = not (state["connections"] or state["unsettled"] or state["alive"])
        return state


@asynccontextmanager
async def serve(ws: str, loop: str) -> AsyncGenerator[Server, None]:
    """Run a server in a process of its own, which logs no traceback."""
    command = [sys.executable, "-m", "tests.soak_app", ws, loop]
    with TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE):
                port = int(await process.stdout.readline())
            yield Server(port)
        finally:
            process.terminate()
            async with asyncio.timeout(DEADLINE):
                await process.wait()
        log.seek(0)
        assert b"Traceback" not in log.read()


async def soak(ws: str, loop: str, seconds: float) -> None:
    """Let a crowd loose on a server, and see that all is as before, and every message known."""
    async with serve(ws, loop) as server:
        crowd = Crowd(server.ws, size=SIZE, seed=SEED)
        part, least = WARM_UP
        await crowd.churn(max(part * seconds, least))
        before = await server.comes_to_rest()
        accounts = await server.get("/ended")
        churning = asyncio.create_task(crowd.churn(seconds))
        while not churning.done():
            await asyncio.wait({churning}, timeout=5)
            accounts += await server.get("/ended")
        await churning
        after = await server.comes_to_rest()
        accounts += await server.get("/ended")
    for name in ("connections", "rooms", "users", "queued", "alive", "unsettled"):
        assert after[name] == 0, name
    for name in ("tasks", "files"):
        assert after[name] == before[name], name
    assert after["resident"] - before["resident"] < TOLERANCE
    audit(accounts, crowd.lives, after)
    waited = max(life.waited for life in crowd.lives.values())
    assert waited < LATENCY
    grown = (after["resident"] - before["resident"]) / 1024
    logger.info(
        "%s on %s: %d clients, %d messages, evicted %s, dropped %s, memory %+.0f KiB of %.0f MiB, "
        "slowest answer %.0f ms",
        *(ws, loop, len(crowd.lives), after["handed"], after["evicted"], after["dropped"]),
        *(grown, before["resident"] / 2**20, waited * 1000),
    )


def audit(accounts: list[dict[str, Any]], lives: dict[str, Life], state: dict[str, Any]) -> None:
    """Account for every message: delivered, dropped, or sent to a peer that left."""
    delivered = left = late = complete = 0
    dropped: Counter[str] = Counter()
    for account in accounts:
        life = lives[account["token"]]
        sent = account["handed"] - sum(account["dropped"].values())
        if account["code"] == life.goodbye and account["evicted"] is None:
            assert life.received == sent, (life, account)  # all that came before the close frame
            complete += 1
        # What was being written when it was given up counts as dropped, and may still arrive.
        assert life.received <= sent + bool(account["dropped"]["closed"]), (life, account)
        delivered += life.received
        left += max(0, sent - life.received)
        late += max(0, life.received - sent)
        dropped.update(account["dropped"])
    assert dropped == state["dropped"]
    assert delivered + left - late == state["sent"]
    assert state["sent"] + dropped.total() == state["handed"]
    assert delivered == sum(life.received for life in lives.values())
    assert complete > 0
    assert left > 0
    assert sum(state["evicted"].values()) >= len(lives) // 200


@pytest.mark.timeout(SOAK_SECONDS + 120)
@pytest.mark.parametrize("seconds", [5.0, pytest.param(SOAK_SECONDS, marks=pytest.mark.slow)])
def test_nothing_stays_and_nothing_is_lost(
    seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Tasks, descriptors, registry and memory are as before, and every message is accounted for.

    Each was delivered, dropped for a reason that was counted, or sent to a peer that left. The
    clients do the same in every run.
    """
    caplog.set_level(logging.WARNING, logger="httpx")

    async def soak_all() -> list[BaseException | None]:
        soaks = [soak(ws, loop, seconds) for ws, loop in SERVERS]
        return await asyncio.gather(*soaks, return_exceptions=True)

    # One that fails does not cut the others short.
    errors = [error for error in asyncio.run(soak_all()) if error is not None]
    if errors:  # pragma: no cover
        raise BaseExceptionGroup("the soak failed", errors)
