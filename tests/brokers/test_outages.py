"""Servers die, stand still and fall silent: workers notice, say so, and go on when they return."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.brokers.proxy import Proxy
from tests.brokers.site import Site
from wshub import BackendLost, BackendRegained, BackendUnavailable
from wshub.testing import until
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.brokers.kinds import Kind, OwnBroker
    from wshub.testing import Client

ROOM = "room=tea"


@asynccontextmanager
async def two_sites(kind: Kind, url: str, prefix: str) -> AsyncGenerator[list[Site], None]:
    """Two workers behind one server."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Site(kind.make(url, prefix=prefix)).running())
            for _ in range(2)
        ]


class Traffic:
    """
    Broadcasts numbers to a room, one after the other, whatever happens.

    Attributes:
        published: Those that the backend took.
        uncertain: Those of which it does not know.
        refused: Those that it did not take.
    """

    def __init__(self, site: Site) -> None:
        self.published: list[int] = []
        self.uncertain: list[int] = []
        self.refused: list[int] = []
        self._site = site

    @asynccontextmanager
    async def flowing(self) -> AsyncGenerator[Traffic, None]:
        """Broadcast for the length of the block."""
        task = asyncio.create_task(self._flow())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _flow(self) -> None:
        number = 0
        while True:
            try:
                await self._site.manager.broadcast(str(number), room="tea")
            except BackendUnavailable as error:
                (self.uncertain if error.uncertain else self.refused).append(number)
            else:
                self.published.append(number)
            number += 1
            await asyncio.sleep(0.01)


class Ear:
    """
    Hears what a client is sent.

    Attributes:
        heard: The numbers, as they came.
    """

    def __init__(self, client: Client) -> None:
        self.heard: list[int] = []
        self._client = client

    async def hears(self, number: int, timeout: float = DEADLINE) -> None:
        """Wait until `number` has come, or a later one."""
        await until(lambda: self.heard and self.heard[-1] >= number, timeout)

    async def listen(self) -> None:
        """Listen until cancelled."""
        async for message in self._client.websocket:
            self.heard.append(int(message))


@asynccontextmanager
async def talking(
    kind: Kind, url: str, prefix: str
) -> AsyncGenerator[tuple[Site, Site, list[Ear], Traffic], None]:
    """Let traffic flow between two workers, each with a client that hears it."""
    async with AsyncExitStack() as stack:
        here, there = await stack.enter_async_context(two_sites(kind, url, prefix))
        ears = [Ear(await stack.enter_async_context(site.connect(ROOM))) for site in (here, there)]
        for site in (here, there):
            await site.has(1)
        listening = [asyncio.create_task(ear.listen()) for ear in ears]
        traffic = await stack.enter_async_context(Traffic(here).flowing())
        for ear in ears:
            await ear.hears(10)
        yield here, there, ears, traffic
        for task in listening:
            task.cancel()
        await asyncio.wait(listening)


async def check_outage(
    kind: Kind,
    url: str,
    prefix: str,
    *,
    begin: Callable[[], object],
    end: Callable[[], object],
    length: float = 0.5,
) -> None:
    """
    Let traffic flow between two workers through an outage that begins, lasts and ends.

    Delivery resumes within five seconds; nothing comes twice or out of order; health, events and
    errors tell the truth, and so does what was delivered: all that was taken, but for what was
    taken in the moments around the loss.
    """
    async with (
        talking(kind, url, prefix) as (here, there, ears, traffic),
        there.connect() as personal,
    ):
        began = time.monotonic()
        begin()
        for site in (here, there):
            await site.is_lost()
        assert await personal.ask("personal") == "personal"
        lost = traffic.published[-1]
        with pytest.raises(BackendUnavailable):
            await there.manager.broadcast("nobody hears it", room="nobody")
        assert time.monotonic() - began < 10
        await asyncio.sleep(length)
        for site in (here, there):
            health = site.manager.health()
            assert not health.ready
            assert health.problem
            assert health.outages == 1
            assert health.seconds >= length

        end()
        ended = time.monotonic()
        published = len(traffic.published)
        for ear in ears:
            await ear.hears(lost + 5, timeout=5)
        assert time.monotonic() - ended < 5
        assert len(traffic.published) > published
        for site in (here, there):
            await site.is_ready(1)
            assert site.manager.health().problem is None
            loss, regain = site.outages
            assert isinstance(loss, BackendLost)
            assert isinstance(regain, BackendRegained)
            assert loss.backend == regain.backend == site.manager.health().backend
            assert ended - began <= regain.gap <= time.monotonic() - began + 2
        back = traffic.published[-1]
        for ear in ears:
            await ear.hears(back + 5)
            assert ear.heard == sorted(set(ear.heard))
            assert not set(ear.heard) & set(traffic.refused)
            taken = {number for number in traffic.published if number > back}
            assert set(range(back, ear.heard[-1])) & taken <= set(ear.heard)


async def test_a_server_that_is_killed_and_started_again(
    kind: Kind, own_broker: OwnBroker, prefix: str
) -> None:
    """Workers come back to a server that knows nothing of them any more."""
    await check_outage(kind, own_broker.url, prefix, begin=own_broker.kill, end=own_broker.start)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    "length", [0.5, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(120)])]
)
async def test_a_server_that_stands_still(
    kind: Kind, own_broker: OwnBroker, prefix: str, length: float
) -> None:
    """No connection breaks, and still it is noticed; attempts go on until one succeeds."""
    await check_outage(
        kind,
        own_broker.url,
        prefix,
        begin=own_broker.pause,
        end=own_broker.resume,
        length=length,
    )


@pytest.mark.one_loop
async def test_packets_that_vanish(kind: Kind, own_broker: OwnBroker, prefix: str) -> None:
    """Neither side hears of it; old connections are given up, new ones tried."""
    async with Proxy(own_broker.port).running() as proxy:
        url = own_broker.url.replace(str(own_broker.port), str(proxy.port))

        def drop(*, dropping: bool) -> None:
            proxy.dropping = dropping

        await check_outage(
            kind,
            url,
            prefix,
            begin=lambda: drop(dropping=True),
            end=lambda: drop(dropping=False),
        )


@pytest.mark.one_loop
async def test_a_worker_that_has_gone_deaf(kind: Kind, own_broker: OwnBroker, prefix: str) -> None:
    """It publishes well, but hears nothing, not even itself: that is an outage, too."""
    async with Proxy(own_broker.port).running() as proxy:
        url = own_broker.url.replace(str(own_broker.port), str(proxy.port))
        deaf, well = (
            Site(kind.make(url, prefix=prefix)),
            Site(kind.make(own_broker.url, prefix=prefix)),
        )
        async with deaf.running(), well.running(), deaf.connect(ROOM) as client:
            await deaf.has(1)
            proxy.deafening = True
            await deaf.is_lost()
            assert well.manager.health().ready
            assert "does not come back" in str(deaf.manager.health().problem)
            proxy.deafening = False
            await deaf.is_ready()
            await well.manager.broadcast("heard", room="tea")
            assert await client.receive() == "heard"
            assert well.outages == []


async def test_connections_that_are_cut(kind: Kind, own_broker: OwnBroker, prefix: str) -> None:
    """An administrator closes them all: the workers are back at once, and say for how long not."""
    async with (
        two_sites(kind, own_broker.url, prefix) as (here, there),
        here.connect(ROOM) as one,
        there.connect(ROOM) as two,
    ):
        await here.has(1)
        await there.has(1)
        for turn in range(1, 4):
            own_broker.cut_connections()
            for site in (here, there):
                await site.reports(2 * turn)
                regain = site.outages[-1]
                assert isinstance(regain, BackendRegained)
                assert regain.gap < 5
                assert site.manager.health().outages == turn
            await here.manager.broadcast(f"turn {turn}", room="tea")
            assert await one.receive() == await two.receive() == f"turn {turn}"


@pytest.mark.one_loop
async def test_connections_that_are_cut_under_traffic(
    kind: Kind, own_broker: OwnBroker, prefix: str
) -> None:
    """What comes, comes once and in order, and goes on within five seconds each time."""
    async with talking(kind, own_broker.url, prefix) as (here, there, ears, traffic):
        for turn in range(1, 4):
            own_broker.cut_connections()
            for site in (here, there):
                await site.reports(2 * turn)
            cut = traffic.published[-1]
            for ear in ears:
                await ear.hears(cut + 5, timeout=5)
        for ear in ears:
            assert ear.heard == sorted(set(ear.heard))
            assert not set(ear.heard) & set(traffic.refused)
            assert set(range(cut + 1, ear.heard[-1])) & set(traffic.published) <= set(ear.heard)


async def test_a_start_without_a_server(kind: Kind, own_broker: OwnBroker, prefix: str) -> None:
    """The app starts, says that it is not ready, and is so once the server is there."""
    own_broker.kill()
    began = time.monotonic()
    async with Site(kind.make(own_broker.url, prefix=prefix)).running() as site:
        assert time.monotonic() - began < 3
        assert not site.manager.health().ready
        assert [type(event) for event in site.outages] == [BackendLost]
        async with site.connect(ROOM) as client:
            await site.has(1)
            assert await client.ask("personal") == "personal"
            own_broker.start()
            await site.is_ready()
            await site.manager.broadcast("hi", room="tea")
            assert await client.receive() == "hi"
        assert [type(event) for event in site.outages] == [BackendLost, BackendRegained]


@pytest.mark.one_loop
async def test_a_start_with_a_server_that_stands_still(
    kind: Kind, own_broker: OwnBroker, prefix: str
) -> None:
    """The start does not hang, and neither does a stop right after it."""
    own_broker.pause()
    began = time.monotonic()
    async with Site(kind.make(own_broker.url, prefix=prefix)).running() as site:
        assert time.monotonic() - began < 4
        assert not site.manager.health().ready
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 2


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_shutdown_during_an_outage(
    kind: Kind, own_broker: OwnBroker, prefix: str, how: str
) -> None:
    """It is as prompt as any, also before anybody has noticed that the server is away."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            Site(kind.make(own_broker.url, prefix=prefix)).running()
        )
        await stack.enter_async_context(site.connect(ROOM))
        await site.has(1)
        getattr(own_broker, how)()
        publishing = asyncio.create_task(site.manager.broadcast("hi", room="tea"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    with pytest.raises(BackendUnavailable):
        await publishing
    assert not site.manager.health().ready
    if how == "pause":
        assert site.outages == []


async def test_joining_during_an_outage(kind: Kind, own_broker: OwnBroker, prefix: str) -> None:
    """It does not wait; whoever joined or left is where it should be once the server is back."""
    async with (
        two_sites(kind, own_broker.url, prefix) as (here, there),
        here.connect(ROOM) as staying,
        here.connect("room=cake") as leaving,
    ):
        await here.has(2)
        own_broker.kill()
        await here.is_lost()
        began = time.monotonic()
        async with here.connect("user=ann&room=scones") as newcomer:
            await here.has(3)
            await here.managed.opened[0].join("jam")
            await here.managed.opened[1].leave("cake")
            assert time.monotonic() - began < 1
            own_broker.start()
            await here.is_ready()
            await there.is_ready()
            for room in ("tea", "cake", "scones", "jam"):
                await there.manager.broadcast(room, room=room)
            await there.manager.send_to_user("ann", "ann")
            assert [await staying.receive() for _ in range(2)] == ["tea", "jam"]
            assert [await newcomer.receive() for _ in range(2)] == ["scones", "ann"]
            await there.manager.broadcast("the end")
            assert await leaving.receive() == "the end"
            assert own_broker.subscriptions(prefix) == 5  # everyone, three rooms and a user
