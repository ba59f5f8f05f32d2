"""What comes of subscriptions and publications when a broker is slow, or lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.fake_broker import FakeBackend, FakeBroker, Server
from wshub import BackendUnavailable
from wshub.backends import _supervisor
from wshub.backends._options import Options
from wshub.backends._supervisor import SupervisedBackend
from wshub.messages import Dismissal
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.messages import DismissalAudience


async def test_a_channel_that_is_wanted_again_while_it_is_given_up(server: Server) -> None:
    """Is not in effect before it is subscribed to anew."""
    async with Worker(FakeBackend(server)).running() as worker:
        await worker.subscribe("room", "tea")
        server.slow = 0.1
        worker.unsubscribe("room", "tea")
        await asyncio.sleep(0.05)
        await worker.subscribe("room", "tea")
        await worker.publish("hi", "room", "tea")
        await worker.reached_by("hi")


@pytest.mark.usefixtures("impatient")
async def test_whoever_waits_for_a_subscription_is_released_by_an_outage(server: Server) -> None:
    """And by whoever gives the channel up."""
    async with Worker(FakeBackend(server)).running() as worker:
        server.hung.add("subscribe")
        given_up = asyncio.create_task(worker.subscribe("room", "tea"))
        lost = asyncio.create_task(worker.subscribe("room", "milk"))
        await asyncio.sleep(0.05)
        worker.unsubscribe("room", "tea")
        await given_up
        assert not lost.done()
        await lost
        assert not worker.backend.health().ready
        server.hung.clear()
        await until(lambda: worker.backend.health().ready)
        await worker.publish("hi", "room", "milk")
        await worker.reached_by("hi")


async def test_joining_does_not_wait_for_a_server_that_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the attempt to connect takes that is under way."""
    async with Worker(FakeBackend(server)).running() as worker:
        monkeypatch.setattr(_supervisor, "PATIENCE", 3600)
        server.hung.add("connect")
        server.drop(ConnectionError("gone"))
        await until(lambda: len(server.connects) == 2)
        await worker.subscribe("room", "tea")
        assert not worker.backend.health().ready


async def test_what_is_wanted_while_it_connects_is_subscribed_to(server: Server) -> None:
    """Also in the moment between the first subscriptions and the first probe."""
    worker = Worker(FakeBackend(server))
    server.late = 0.05
    starting = asyncio.create_task(worker.backend.start())
    await until(lambda: any(broker.channels for broker in server.brokers))
    await worker.subscribe("room", "tea")
    await starting
    await worker.publish("hi", "room", "tea")
    await worker.reached_by("hi")
    await worker.backend.stop()


async def test_rooms_that_come_without_end_do_not_hold_up_the_start(server: Server) -> None:
    """Also where each answer is slow, and rooms are joined and left meanwhile."""

    class BusyBroker(FakeBroker):
        async def subscribe(self, channels: Sequence[str]) -> None:
            worker.want("room", str(len(self.channels)))
            await super().subscribe(channels)

    worker = Worker(SupervisedBackend(BusyBroker(server), Options()))
    server.slow = 0.02
    async with asyncio.timeout(2), worker.running():
        await worker.subscribe("room", "tea")
        await worker.publish("hi", "room", "tea")
        await worker.reached_by("hi")


async def test_a_dismissal_goes_where_those_whom_it_means_can_hear_it(server: Server) -> None:
    """On the channel of a user, or else on that for everyone, as no other has its audience."""
    async with Worker(FakeBackend(server)).running() as worker:
        await worker.subscribe("user", "ann")
        audiences: tuple[DismissalAudience, ...] = ("newcomer", "user", "session")
        for audience in audiences:
            await worker.backend.publish(Dismissal(audience, "ann", 4000, ""))
        await until(lambda: len(server.published) == 3)
        assert server.published == ["wshub:everyone", "wshub:user:ann", "wshub:everyone"]


@pytest.mark.usefixtures("impatient")
async def test_what_was_published_and_not_taken_is_uncertain_and_never_sent_again(
    server: Server,
) -> None:
    """What had not left yet waits for the server to return, as long as its sender does."""
    backend = FakeBackend(server, Options(publish_timeout=2.0))
    async with Worker(backend).running() as worker:
        server.hung.add("publish")
        leaving = asyncio.create_task(worker.publish("leaves"))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(worker.publish("waits"))
        with pytest.raises(BackendUnavailable, match="does not know whether") as unavailable:
            await leaving
        assert unavailable.value.uncertain
        server.hung.clear()
        await waiting
        await worker.reached_by("waits")


async def test_an_answer_that_came_in_time_counts_though_nobody_looked(server: Server) -> None:
    """As when a handler holds up the loop until after the deadline."""

    class PromptFakeBroker(FakeBroker):
        def send(self, channel: str, payload: bytes) -> asyncio.Future[None]:
            loop = asyncio.get_running_loop()
            taken = loop.create_future()
            self.server.publish(channel, payload)
            loop.call_later(0.05, taken.set_result, None)
            loop.call_later(0.02, time.sleep, 0.3)
            return taken

    backend = SupervisedBackend(PromptFakeBroker(server), Options(publish_timeout=0.1))
    async with Worker(backend).running() as worker:
        await worker.publish("hi")
        await worker.reached_by("hi")


async def test_a_publication_that_nobody_waits_for_any_more_is_not_sent(server: Server) -> None:
    """Neither one that was cancelled nor one that took too long."""
    async with Worker(FakeBackend(server, Options(publish_timeout=0.1))).running() as worker:
        server.problem = ConnectionError("gone")
        server.drop(ConnectionError("gone"))
        await until(lambda: not worker.backend.health().ready)
        with pytest.raises(BackendUnavailable, match="gone; try again later") as unavailable:
            await worker.publish("late")
        assert not unavailable.value.uncertain
        cancelled = asyncio.create_task(worker.publish("cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        server.problem = None
        await until(lambda: worker.backend.health().ready)
        await worker.publish("hi")
        await worker.reached_by("hi")
