"""How a supervisor notices that it is deaf, and what it does not take for an outage."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from tests.fake_broker import FakeBackend, FakeBroker, Server, kinds
from wshub import BackendUnavailable
from wshub._wire import Probe, write_envelope
from wshub.backends import _deadline, _outgoing
from wshub.backends._deadline import Limit
from wshub.backends._options import Options
from wshub.backends._supervisor import SupervisedBackend
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.messages import Envelope


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


async def test_a_cancellation_that_a_driver_keeps_to_itself_is_heard() -> None:
    """As `asyncio.wait_for()` does before Python 3.12, now and then."""

    async def wait() -> None:
        async with Limit(60):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
