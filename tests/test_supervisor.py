"""What the supervisor of a broker does when things go wrong that real servers seldom do."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from wshub import BackendLost, BackendRefused, BackendRegained, BackendUnavailable
from wshub._wire import Probe, write_envelope
from wshub.backends import _deadline, _outgoing, _supervisor
from wshub.backends._broker import BrokerRefused
from wshub.backends._deadline import Limit
from wshub.backends._options import Options
from wshub.backends._supervisor import SupervisedBackend
from wshub.backends.base import Receiver
from wshub.messages import Dismissal
from wshub.testing import until
from wshub.testing._worker import Worker
from wshub.testing.backends import BackendContract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.backends import Backend
    from wshub.messages import DismissalAudience, Envelope


class Server:
    """
    The server between fake brokers.

    Attributes:
        problem: What connecting runs into, if anything.
        hung: Names of the methods that never end.
        slow: Seconds that each answer takes.
        silent: Whether nothing that is published arrives.
        late: Seconds that probes are under way.
        connects: When somebody tried to connect.
        published: The channels of messages that are no probes.
    """

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.hung: set[str] = set()
        self.slow = 0.0
        self.silent = False
        self.late = 0.0
        self.connects: list[float] = []
        self.brokers: list[FakeBroker] = []
        self.published: list[str] = []

    def publish(self, channel: str, payload: bytes) -> None:
        if ":worker:" not in channel:
            self.published.append(channel)
        for broker in self.brokers:
            if channel in broker.channels and not self.silent:
                broker.arrived.put_nowait(payload)

    def drop(self, error: Exception) -> None:
        """Let all connections fail."""
        for broker in self.brokers:
            broker.arrived.put_nowait(error)


class FakeBroker:
    """A broker without a network."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channels: set[str] = set()
        self.arrived: asyncio.Queue[bytes | Exception]

    async def connect(self) -> None:
        self.server.connects.append(time.monotonic())
        await self._answer("connect")
        if self.server.problem is not None:
            raise self.server.problem
        self.arrived = asyncio.Queue()
        self.server.brokers.append(self)

    def spread(self, channel: str) -> Sequence[str]:
        return [channel, f"{channel}:1"]

    async def close(self) -> None:
        self.channels.clear()
        if self in self.server.brokers:
            self.server.brokers.remove(self)
        await self._answer("close")
        if self.server.problem is not None:
            raise self.server.problem

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self._answer("publish")
        for channel, payload in messages:
            if ":worker:" in channel:
                loop = asyncio.get_running_loop()
                loop.call_later(self.server.late, self.server.publish, channel, payload)
            else:
                self.server.publish(channel, payload)

    async def subscribe(self, channels: Sequence[str]) -> None:
        await self._answer("subscribe")
        self.channels.update(channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        self.channels.difference_update(channels)
        await self._answer("unsubscribe")

    async def receive(self) -> bytes:
        arrived = await self.arrived.get()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    async def _answer(self, method: str) -> None:
        await asyncio.sleep(self.server.slow)
        if method in self.server.hung:
            await asyncio.get_running_loop().create_future()


class FakeBackend(SupervisedBackend):
    """A backend around a fake broker."""

    def __init__(self, server: Server, options: Options | None = None) -> None:
        super().__init__(FakeBroker(server), options or Options())


class TestFake(BackendContract):
    """The supervisor itself does what backends have to do."""

    max_payload = 50_000

    @pytest.fixture(autouse=True)
    def use(self) -> None:
        self.server = Server()

    def make(self, prefix: str) -> Backend:
        return FakeBackend(self.server, Options(prefix, max_payload=50_000))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in tenths of seconds what else takes seconds."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.2)
    monkeypatch.setattr(_supervisor, "PROBE_INTERVAL", 0.1)
    monkeypatch.setattr(_supervisor, "CLOSING", 0.1)


def kinds(worker: Worker) -> list[str]:
    return [type(event).__name__ for event in worker.events]


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


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_does_not_hear_itself_is_deaf(server: Server) -> None:
    """Though the server takes all it is told."""
    async with Worker(FakeBackend(server)).running() as worker:
        server.silent = True
        await until(lambda: not worker.backend.health().ready)
        assert worker.backend.health().problem == "what is published does not come back"
        await asyncio.sleep(0.5)
        assert kinds(worker) == ["BackendLost"]
        server.silent = False
        await until(lambda: worker.backend.health().ready)


@pytest.mark.usefixtures("impatient")
async def test_a_probe_behind_many_messages_is_no_outage(server: Server) -> None:
    """A worker that is busy with what it hears is not deaf."""
    async with Worker(FakeBackend(server)).running() as worker:
        server.late = 0.5
        for _ in range(20):
            await worker.publish("chatter")
            await asyncio.sleep(0.05)
        assert worker.events == []


@pytest.mark.usefixtures("impatient")
async def test_a_subscription_behind_many_messages_is_no_outage(server: Server) -> None:
    """A worker that is behind, and joins and leaves rooms, loses nothing of what waits for it."""

    class OrderlyBroker(FakeBroker):
        """Answers on the connection that listens, after all that was published before."""

        async def subscribe(self, channels: Sequence[str]) -> None:
            await super().subscribe(channels)
            await self._answer_behind()

        async def unsubscribe(self, channels: Sequence[str]) -> None:
            await super().unsubscribe(channels)
            await self._answer_behind()

        async def receive(self) -> bytes:
            payload = await super().receive()
            while payload.startswith(b"answer"):
                self.answer.set_result(None)
                payload = await super().receive()
            return payload

        async def _answer_behind(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()
            self.arrived.put_nowait(b"answer")
            await self.answer

    class SlowWorker(Worker):
        async def _deliver(self, envelope: Envelope) -> None:
            await asyncio.sleep(0.05)
            await super()._deliver(envelope)

    texts = [str(number) for number in range(24)]
    async with SlowWorker(SupervisedBackend(OrderlyBroker(server), Options())).running() as worker:
        await worker.subscribe("room", "tea")
        for text in texts[:12]:
            await worker.publish(text)
        await worker.subscribe("room", "milk")
        for text in texts[12:]:
            await worker.publish(text)
        worker.unsubscribe("room", "tea")
        await worker.reached_by(*texts)
        await worker.subscribe("room", "tea")
        assert worker.events == []


@pytest.mark.usefixtures("impatient")
async def test_a_long_queue_is_no_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes overtake what waits, and it does not count how long they wait for what is sent."""
    monkeypatch.setattr(_outgoing, "BATCH_MESSAGES", 2)
    async with Worker(FakeBackend(server, Options(publish_timeout=10))).running() as worker:
        server.slow = 0.03
        async with asyncio.TaskGroup() as tasks:
            for _ in range(60):
                tasks.create_task(worker.publish("hi", "room", "of somebody else"))
        assert worker.events == []


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_only_hears_others_is_found_out(server: Server) -> None:
    """Its own messages are lost: no amount of traffic hides that for ever."""
    async with Worker(FakeBackend(server)).running() as worker:
        server.late = 1000
        async with asyncio.timeout(5):
            while not worker.events:
                with suppress(BackendUnavailable):  # one that is under way then
                    await worker.publish("chatter")
                await asyncio.sleep(0.05)
        assert kinds(worker) == ["BackendLost"]


async def test_workers_that_were_made_as_one_do_not_hear_each_others_probes(
    server: Server,
) -> None:
    """As those that are forked from a process that has made the backend."""
    backend = FakeBackend(server)
    first, second = (Worker(deepcopy(backend, {id(server): server})) for _ in range(2))
    async with first.running(), second.running():
        channels = [broker.channels for broker in server.brokers]
        assert [name for name in channels[0] & channels[1] if ":worker:" in name] == []


async def test_a_probe_of_somebody_else_before_the_own_one_is_passed_over(server: Server) -> None:
    """Whoever it is that knows the channel of this worker."""

    class EarlyBroker(FakeBroker):
        async def subscribe(self, channels: Sequence[str]) -> None:
            await super().subscribe(channels)
            self.arrived.put_nowait(write_envelope(Probe("stranger")))
            await asyncio.sleep(0.01)

    async with Worker(SupervisedBackend(EarlyBroker(server), Options())).running() as worker:
        await worker.publish("hi")
        await worker.reached_by("hi")
    assert worker.events == []


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


@pytest.mark.usefixtures("impatient")
async def test_an_event_loop_that_is_held_up_is_no_outage(server: Server) -> None:
    """The answer waits in its socket meanwhile: it is not the server that was late."""
    async with Worker(FakeBackend(server)).running() as worker:
        for _ in range(5):
            server.late = 0.05
            await asyncio.sleep(0.12)
            time.sleep(0.6)  # noqa: ASYNC251  (a handler that should not)
        await asyncio.sleep(0.3)
        assert worker.events == []


async def test_a_limit_holds_from_the_moment_that_the_loop_is_free() -> None:
    """It ends a wait once the loop had its time, and leaves others alone."""

    async def dawdle(seconds: float) -> None:
        async with Limit(0.1):
            time.sleep(0.5)  # noqa: ASYNC251
            await asyncio.sleep(seconds)

    await dawdle(0.01)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await dawdle(10)
    assert 0.55 < time.monotonic() - began < 2


async def test_a_limit_is_not_put_off_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that is late each time ends a wait, too, if some turns later."""
    monkeypatch.setattr(_deadline, "LATE", 0.01)

    async def be_late() -> None:
        async with Limit(0.01):
            for _ in range(20):  # pragma: no branch  (it does not come to the end)
                time.sleep(0.03)  # noqa: ASYNC251
                await asyncio.sleep(0)

    with pytest.raises(TimeoutError):
        await be_late()


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


def test_it_says_what_it_is(server: Server) -> None:
    """Without any address, for it could have a password in it."""
    backend = FakeBackend(server)
    assert repr(backend).startswith("<FakeBackend prefix='wshub' it is not started; pass lifespan")
