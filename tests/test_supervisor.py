"""How a supervisor starts, begins again, and stops."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from tests.fake_broker import FakeBackend, Server, kinds
from wshub import BackendLost, BackendRefused, BackendRegained, BackendUnavailable
from wshub.backends import _supervisor
from wshub.backends._broker import BrokerRefused
from wshub.backends._options import Options
from wshub.backends.base import Receiver
from wshub.messages import Dismissal
from wshub.testing import until
from wshub.testing._worker import Worker
from wshub.testing.backends import BackendContract

if TYPE_CHECKING:
    from wshub.backends import Backend
    from wshub.messages import Envelope


class TestFake(BackendContract):
    """The supervisor itself does what backends have to do."""

    max_payload = 50_000

    @pytest.fixture(autouse=True)
    def use(self) -> None:
        self.server = Server()

    def make(self, prefix: str) -> Backend:
        return FakeBackend(self.server, Options(prefix, max_payload=50_000))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["publish", "subscribe", "unsubscribe"])
async def test_a_call_that_never_ends_is_an_outage(server: Server, method: str) -> None:
    """Each has a deadline, whatever the server is asked for."""
    async with Worker(FakeBackend(server)).running() as worker:
        await worker.subscribe("room", "tea")
        server.hung.add(method)
        worker.unsubscribe("room", "tea")
        worker.want("room", "milk")
        await until(lambda: kinds(worker) == ["BackendLost"])
        assert worker.backend.health().problem
        server.hung.clear()
        await until(lambda: kinds(worker) == ["BackendLost", "BackendRegained"])
        await worker.publish("hi", "room", "milk")
        await worker.reached_by("hi")


async def test_a_supervisor_that_somebody_cancels_is_not_healthy(server: Server) -> None:
    """As by what cancels all tasks of a loop."""
    backend = FakeBackend(server, Options(publish_timeout=0.1))
    async with Worker(backend).running() as worker:
        task = backend._task
        assert task is not None
        task.cancel()
        await asyncio.wait({task})
        assert backend.health().problem == "its supervisor was cancelled"
        with pytest.raises(BackendUnavailable):
            await worker.publish("hi")


async def test_attempts_come_less_and_less_often(server: Server) -> None:
    """Up to one or two seconds apart, at random, so that many workers do not come at once."""
    server.problem = ConnectionError("gone")
    async with Worker(FakeBackend(server)).running():
        await until(lambda: len(server.connects) == 6)
    pauses = [b - a for a, b in zip(server.connects, server.connects[1:], strict=False)]
    assert all(0.5 * 0.05 * 2**number <= pause for number, pause in enumerate(pauses))
    assert sum(pauses) < 2.5


async def test_a_long_outage_is_no_different(server: Server) -> None:
    """After thousands of attempts there is another one soon."""
    async with Worker(backend := FakeBackend(server)).running():
        backend._pauses = 10_000
        server.drop(ConnectionError("gone"))
        await until(lambda: not backend.health().ready)
        await until(lambda: backend.health().ready, 5)


async def test_a_connection_that_held_makes_the_next_attempt_quick(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is lost at once does not: a server that fails all workers is left in peace."""
    async with Worker(FakeBackend(server)).running() as worker:
        for number in range(4):
            server.drop(ConnectionError("gone"))
            await until(lambda number=number: len(worker.events) == 2 * number + 2)  # type: ignore[misc]
        regains = [event for event in worker.events if isinstance(event, BackendRegained)]
        assert regains[3].gap > 0.2
        monkeypatch.setattr(_supervisor, "STABLE", 0)
        server.drop(ConnectionError("gone"))
        await until(lambda: len(worker.events) == 10)
        regains = [event for event in worker.events if isinstance(event, BackendRegained)]
        assert regains[4].gap < 0.2


async def test_workers_do_not_come_back_all_at_once(server: Server) -> None:
    """A server that has just returned has not all of them to answer in the same moment."""
    workers = []
    async with AsyncExitStack() as stack:
        for _ in range(8):
            worker = Worker(backend := FakeBackend(server))
            workers.append(await stack.enter_async_context(worker.running()))
            backend._pauses = 4
        server.drop(ConnectionError("gone"))
        await until(lambda: all(len(worker.events) == 2 for worker in workers))
        events = [worker.events[1] for worker in workers]
        gaps = [event.gap for event in events if isinstance(event, BackendRegained)]
        assert len(gaps) == 8
        assert max(gaps) - min(gaps) > 0.1


async def test_a_server_that_refuses_later_is_an_outage(server: Server) -> None:
    """Its password may be changed back; health says what is wrong."""
    async with Worker(FakeBackend(server)).running() as worker:
        server.problem = BrokerRefused("it refuses the password")
        server.drop(ConnectionError())
        await until(lambda: worker.backend.health().problem == "it refuses the password")
        assert worker.backend.health().outages == 1
        (lost,) = worker.events
        assert lost == BackendLost("FakeBackend", "ConnectionError()")
        server.problem = None
        await until(lambda: worker.backend.health().ready)


@pytest.mark.usefixtures("impatient")
async def test_a_connection_that_cannot_be_closed_is_given_up(server: Server) -> None:
    """A stop ends all the same, within a moment."""
    async with Worker(FakeBackend(server)).running():
        server.hung.add("close")
        began = time.monotonic()
    assert time.monotonic() - began < 1
    server.hung.clear()


async def test_a_receiver_that_fails_does_not_end_the_stream(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next envelope is delivered."""

    class FailingWorker(Worker):
        async def _deliver(self, envelope: Envelope) -> None:
            await super()._deliver(envelope)
            raise ValueError("a bug")

    with caplog.at_level(logging.ERROR):
        async with FailingWorker(FakeBackend(server)).running() as worker:
            await worker.publish("one")
            await worker.publish("two")
            await worker.reached_by("one", "two")
            assert worker.events == []
    assert [record.exc_text is not None for record in caplog.records] == [True, True]


async def test_a_supervisor_that_fails_is_not_healthy(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is led to believe that it goes on; another start helps."""
    backend = FakeBackend(server)

    async def deliver(envelope: object) -> None:
        """Nobody publishes."""

    def report(event: object) -> None:
        raise ValueError("a bug")

    backend.attach(Receiver(deliver, report, report))
    await backend.start()
    server.drop(ConnectionError("gone"))
    await until(lambda: "has failed: ValueError('a bug')" in str(backend.health().problem))
    assert not backend.health().ready
    with pytest.raises(BackendUnavailable):
        await backend.publish(Dismissal("user", "ann", 4000, ""))
    assert "the supervisor of FakeBackend has failed" in caplog.text
    await backend.stop()
    await backend.start()
    assert backend.health().ready
    await backend.stop()


async def test_it_is_started_once(server: Server) -> None:
    """A second start, of a lifespan inside another, is an error; it changes nothing."""
    async with Worker(FakeBackend(server)).running() as worker:
        with pytest.raises(RuntimeError, match="started already; one lifespan is enough"):
            await worker.backend.start()
        await worker.publish("hi")
        await worker.reached_by("hi")


async def test_a_stop_during_the_start_ends_both(server: Server) -> None:
    """Whoever starts it is told."""
    server.hung.add("connect")
    worker = Worker(FakeBackend(server))
    starting = asyncio.create_task(worker.backend.start())
    await asyncio.sleep(0.01)
    await worker.backend.stop()
    with pytest.raises(BackendUnavailable, match="it is stopped"):
        await starting
    assert worker.events == []


async def test_a_start_that_is_refused_can_be_tried_again(server: Server) -> None:
    """Nothing of the first is left, and it is no outage."""
    worker = Worker(FakeBackend(server))
    server.problem = BrokerRefused("no such database; use another")
    with pytest.raises(BackendRefused, match=r"^FakeBackend cannot start: no such database; use"):
        await worker.backend.start()
    assert worker.backend.health()[:3] == (False, "FakeBackend", "it is stopped")
    assert worker.backend.health().outages == 0
    server.problem = None
    async with worker.running():
        await worker.publish("hi")
        await worker.reached_by("hi")
    assert worker.events == []


async def test_a_stop_in_the_moment_of_a_loss(server: Server) -> None:
    """Is a stop: it ends at once, and tells of no loss."""
    for turns in range(6):
        worker = Worker(FakeBackend(server))
        await worker.backend.start()
        worker.want("room", "tea")
        server.drop(ConnectionError("gone"))
        for _ in range(turns):
            await asyncio.sleep(0)
        began = time.monotonic()
        lost = bool(worker.events)
        await worker.backend.stop()
        assert time.monotonic() - began < 0.5
        assert bool(worker.events) == lost


@pytest.mark.parametrize("method", ["connect", "subscribe", "publish", "close"])
async def test_a_stop_that_a_driver_keeps_to_itself(server: Server, method: str) -> None:
    """It is a stop all the same: nothing goes on."""
    server.stubborn.add(method)
    if method == "close":
        server.problem = ConnectionError("gone")
    backend = Worker(FakeBackend(server)).backend
    starting = asyncio.create_task(backend.start())
    await until(lambda: method in server.entered)
    await backend.stop()
    with suppress(BackendUnavailable):
        await starting


def test_another_event_loop_may_start_it_again(server: Server) -> None:
    """Also if the first one ended without a stop."""
    worker = Worker(FakeBackend(server))

    async def live(text: str, *, stop: bool) -> None:
        await worker.backend.start()
        await worker.subscribe("room", "tea")
        await worker.publish(text, "room", "tea")
        await worker.reached_by(text)
        if stop:
            await worker.backend.stop()

    for stop in (True, False, True):
        asyncio.run(live("hi", stop=stop))
    assert worker.events == []


def test_it_says_what_it_is(server: Server) -> None:
    """Without any address, for it could have a password in it."""
    backend = FakeBackend(server)
    assert repr(backend).startswith("<FakeBackend prefix='wshub' it is not started; pass lifespan")
