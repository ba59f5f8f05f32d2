"""The rooms example with several workers, behind each kind of broker."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.brokers.kinds import SIMPLE
from tests.examples.pages import conversation, introduce, send

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.brokers.kinds import Broker, OwnBroker
    from tests.examples.conftest import Running, Tabs, Visitor

    Run = Callable[..., AbstractAsyncContextManager[Running]]
    Visit = Callable[..., AbstractAsyncContextManager[Visitor]]

pytestmark = pytest.mark.one_loop

LONG = 50.0
"""Seconds for several processes to start, and for what they are started for."""


@asynccontextmanager
async def two_workers(run: Run, url: str) -> AsyncGenerator[list[Running], None]:
    """Run the example twice, on two ports."""
    async with AsyncExitStack() as stack:
        running = [run("rooms", "--port", "0", backend=url, timeout=LONG) for _ in range(2)]
        yield [await stack.enter_async_context(each) for each in running]


async def test_rooms_span_workers(run: Run, visit: Visit, broker: Broker) -> None:
    """What is said, told and who is here reaches people on the other worker."""
    async with (
        two_workers(run, broker.url) as (here, there),
        visit(here, "Ana", "lobby") as ana,
        visit(there, "Ben", "lobby") as ben,
    ):
        await ana.sees("lobby", "Ben")
        await ben.sees("lobby", "Ana")  # again and again, for those who come later
        await ana.say("say", ref="1", room="lobby", text="hi")
        for visitor in (ana, ben):
            said = await visitor.hear("said")
            assert (said["ref"], said["sender"]["name"]) == ("1", "Ana")
        await ana.say("tell", ref="2", to=ben.id, text="psst")
        for visitor in (ana, ben):
            assert (await visitor.hear("told"))["text"] == "psst"
        here.process.send_signal(signal.SIGINT)
        assert await here.ended() == (0, "")


@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_rooms_span_the_workers_of_one_port(
    run_workers: Run, visit: Visit, broker: Broker
) -> None:
    """As the tutorial starts them; people come in until some are on either worker."""
    async with AsyncExitStack() as stack:
        workers = run_workers("rooms", 2, backend=broker.url, timeout=LONG)
        server = await stack.enter_async_context(workers)
        visitors: list[Visitor] = []
        while len({visitor.worker for visitor in visitors}) < 2:
            visiting = visit(server, f"Ana {len(visitors)}", "lobby")
            visitors.append(await stack.enter_async_context(visiting))
        for speaker in (visitors[0], visitors[-1]):  # who has come last is alone on a worker
            await speaker.say("say", ref="1", room="lobby", text="hi")
            for visitor in visitors:
                said = await visitor.hear("said")
                assert (said["sender"]["id"], said["text"]) == (speaker.id, "hi")


async def test_rooms_while_the_broker_is_away(
    run: Run, visit: Visit, own_broker: OwnBroker
) -> None:
    """The writer learns that a message was not delivered; people come and go all the same."""
    async with (
        run("rooms", "--port", "0", backend=own_broker.url, timeout=LONG) as here,
        visit(here, "Ana", "lobby") as ana,
    ):
        await ana.sees("lobby", "Ana")
        own_broker.kill()
        await ana.say("say", ref="1", room="lobby", text="hello?")
        await ana.hear("undelivered", ref="1")
        async with visit(here, "Ben", "lobby") as ben:
            own_broker.start()
            await ana.sees("lobby", "Ana", "Ben")
            await ana.say("tell", ref="2", to=ben.id, text="psst")
            assert (await ben.hear("told"))["text"] == "psst"
        here.process.send_signal(signal.SIGINT)
        assert (await here.ended())[0] == 0


@pytest.mark.browser
async def test_rooms_pages_of_several_workers(tabs: Tabs, run: Run, broker: Broker) -> None:
    """Pages add up what the workers say, and forget a worker that has gone."""
    async with run("rooms", "--port", "0", backend=broker.url, timeout=LONG) as here:
        async with run("rooms", "--port", "0", backend=broker.url, timeout=LONG) as there:
            ana = await introduce(await tabs.open(f"{here.http}/"), "Ana")
            ben = await introduce(await tabs.open(f"{there.http}/"), "Ben")
            for page in (ana, ben):
                await expect(page.locator("#people li")).to_have_count(2)
            lobby = ana.locator("#rooms").get_by_role("button", name="lobby")
            await expect(lobby).to_have_accessible_name("lobby 2 people")
            await send(ana, "hi")
            await expect(conversation(ben).locator(".bubble")).to_have_text("hi")
            await ana.locator("#people").get_by_role("button", name="Ben").click()
            await send(ana, "psst")
            entry = ben.locator("#private-list").get_by_role("button", name="Ana 1 unread")
            await expect(entry).to_be_visible()
            await ana.get_by_role("button", name="lobby").first.click()
            tabs.expected = "ERR_CONNECTION_REFUSED"
            there.process.send_signal(signal.SIGKILL)
            await there.ended()
        await expect(conversation(ana)).to_contain_text("Ben left")
        await expect(ana.locator("#people li")).to_have_count(1)
        await expect(lobby).to_have_accessible_name("lobby 1 person")
