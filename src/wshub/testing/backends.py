"""
The contract of backends, as tests for pytest: what a manager relies on, whoever wrote the backend.

Needs pytest and pytest-asyncio, and nothing of the manager.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from wshub.exceptions import BackendUnavailable, PayloadTooLarge
from wshub.messages import Dismissal, Publication, encode
from wshub.testing._extras import needing
from wshub.testing._worker import Worker

with needing("wshub[testing]"):
    import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from wshub.backends.base import Backend

__all__ = ("BackendContract",)

ODD_NAMES = (
    "a b",
    "a.b",
    "a.*",
    "a.>",
    ">",
    "*",
    "a:b",
    "{a}b",
    "%41",
    "A",
    "a",
    "everyone",
    "'; DROP TABLE rooms; --",
    '"quoted"',
    "back\\slash",
    "$JS.API",
    "ä€😀",
    "x" * 255,
    "x" * 254 + "y",
)
"""Names of rooms that mean something to some broker, or are nearly the same."""


class BackendContract(ABC):
    """
    Tests of what every backend must do. Subclass it, and say how to make one.

    ```text
    class TestMyBackend(BackendContract):
        def make(self, prefix: str) -> Backend:
            return MyBackend("my://localhost", prefix=prefix)
    ```

    Attributes:
        shared: Whether two backends that are made with the same prefix reach each other.
        has_common_order: Whether all workers see what several of them publish to an audience in
            one order; what one of them publishes they always do.
        one_order: Whether messages for different audiences arrive in the order in which they were
            published, too; those for one audience always have to.
        max_payload: Bytes that no message may have, with its envelope; None: there is no limit.
    """

    shared: bool = True
    has_common_order: bool = True
    one_order: bool = True
    max_payload: int | None = None

    @abstractmethod
    def make(self, prefix: str) -> Backend:
        """Return a new backend that has not been started. `prefix` keeps tests apart."""

    @asynccontextmanager
    async def workers(self, number: int = 2) -> AsyncGenerator[Sequence[Worker], None]:
        """Start some backends that reach each other; a single one if they never do."""
        prefix = f"t{secrets.token_hex(6)}"
        async with AsyncExitStack() as stack:
            workers = [Worker(self.make(prefix)) for _ in range(number if self.shared else 1)]
            for worker in workers:
                await stack.enter_async_context(worker.running())
                assert worker.backend.health().ready
            yield workers

    @pytest.mark.asyncio
    async def test_it_carries_messages_to_every_worker(self) -> None:
        """Text, binary, empty and large messages arrive as they were, its own worker included."""
        messages: list[str | bytes] = ["hi", b"\x00\xff\n", "", b"", "ä€😀\n\x00", "x" * 7000]
        messages += ["y" * 20_000, bytes(range(256)) * 40]
        async with self.workers() as workers:
            for message in messages:
                await workers[0].publish(message)
            for worker in workers:
                await worker.reached_by(*messages)

    @pytest.mark.asyncio
    async def test_it_carries_an_envelope_unchanged(self) -> None:
        """Audience, name and exclusions arrive, and so does a dismissal, in its place."""
        async with self.workers() as workers:
            for worker in workers:
                await worker.subscribe("room", "tea")
                await worker.subscribe("user", "ann")
            await workers[-1].backend.publish(
                Publication("room", "tea", encode("in"), frozenset({"id one", "id-två"}))
            )
            dismissal = Dismissal("user", "ann", 4001, "gö")
            await workers[-1].publish("before", "user", "ann")
            await workers[-1].backend.publish(dismissal)
            for worker in workers:
                await worker.is_delivered(3)
                room, before, last = sorted(worker.delivered, key=lambda each: each.audience)
                assert isinstance(room, Publication)
                assert (room.audience, room.name) == ("room", "tea")
                assert room.exclude == {"id one", "id-två"}
                assert isinstance(before, Publication)
                assert (before.audience, before.name) == ("user", "ann")
                assert before.exclude == frozenset()
                assert last == dismissal

    @pytest.mark.asyncio
    async def test_a_subscription_that_is_in_effect_misses_nothing(self) -> None:
        """From `subscribed()` on each publication arrives, until `unsubscribe()`, and again."""
        async with self.workers() as workers:
            sender, receiver = workers[0], workers[-1]
            for turn in range(20):
                await receiver.subscribe("room", "tea")
                await sender.publish(f"tea {turn}", "room", "tea")
                await receiver.reached_by(f"tea {turn}")
                receiver.unsubscribe("room", "tea")
                await sender.publish(f"nobody {turn}", "room", "tea")
                await sender.publish(f"everyone {turn}")
                await receiver.reached_by(f"everyone {turn}")

    @pytest.mark.asyncio
    async def test_churn_loses_no_subscription(self) -> None:
        """However fast they come and go, the last word holds."""
        async with self.workers() as workers:
            sender, receiver = workers[0], workers[-1]
            rooms = [f"room {number}" for number in range(100)]
            for turn in range(10):
                for number, room in enumerate(rooms):
                    receiver.want("room", room)
                    if (turn + number) % 3:
                        receiver.unsubscribe("room", room)
                if turn % 2:
                    await asyncio.sleep(0.001)
            for room in rooms[::2]:
                receiver.unsubscribe("room", room)
            for room in rooms[1::2]:
                await receiver.subscribe("room", room)
            for room in rooms:
                await sender.publish(room, "room", room)
            await sender.publish("the end")
            await receiver.reached_by(*rooms[1::2], "the end", in_order=self.one_order)

    @pytest.mark.asyncio
    async def test_names_are_taken_as_they_are(self) -> None:
        """No name is a pattern, none is cut off, none is another's; rooms are no users."""
        async with self.workers() as workers:
            sender, receiver = workers[0], workers[-1]
            for name in ODD_NAMES:
                await receiver.subscribe("room", name)
            for number, name in enumerate(ODD_NAMES):
                await sender.publish(f"user {number}", "user", name)
                await sender.publish(f"room {number}", "room", name)
            await sender.publish("neither", "room", "none of them")
            await sender.publish("the end")
            expected = [f"room {number}" for number in range(len(ODD_NAMES))]
            await receiver.reached_by(*expected, "the end", in_order=self.one_order)

    @pytest.mark.asyncio
    async def test_all_workers_see_one_order(self) -> None:
        """Of messages that several workers publish to a room at the same time, none twice."""
        async with self.workers(3) as workers:
            for worker in workers:
                await worker.subscribe("room", "tea")

            async def talk(name: int, worker: Worker) -> None:
                for number in range(100):
                    await worker.publish(f"{name} {number}", "room", "tea")

            await asyncio.gather(*(talk(*named) for named in enumerate(workers)))
            for worker in workers:
                await worker.is_delivered(100 * len(workers))
                assert len(worker.texts) == 100 * len(workers)
                if self.has_common_order:
                    assert worker.texts == workers[0].texts
                for name in range(len(workers)):
                    own = [text for text in worker.texts if str(text).startswith(f"{name} ")]
                    assert own == [f"{name} {number}" for number in range(100)]

    @pytest.mark.asyncio
    async def test_many_publications_at_once_arrive_in_the_order_of_their_calls(self) -> None:
        """Calls that wait at the same time are taken one after the other."""
        async with self.workers() as workers:
            texts = [f"message {number}" for number in range(500)]
            await asyncio.gather(*map(workers[0].publish, texts))
            for worker in workers:
                await worker.reached_by(*texts)

    @pytest.mark.asyncio
    async def test_thousands_of_subscriptions_are_in_effect_at_once(self) -> None:
        """A worker with many rooms starts, and each of them is reached."""
        async with self.workers() as workers:
            sender, receiver = workers[0], workers[-1]
            rooms = [f"room {number}" for number in range(3000)]
            for room in rooms:
                receiver.want("room", room)
            await receiver.subscribe("room", "the last")
            for room in rooms[::100]:
                await receiver.subscribe("room", room)
                await sender.publish(room, "room", room)
            await receiver.reached_by(*rooms[::100], in_order=self.one_order)
            for room in rooms:
                receiver.unsubscribe("room", room)

    @pytest.mark.asyncio
    async def test_it_can_be_stopped_and_started_again(self) -> None:
        """What is subscribed meanwhile holds; stopping twice, or before the start, is fine."""
        async with self.workers(1) as workers:
            (worker,) = workers
            await worker.subscribe("room", "old")
            await worker.backend.stop()
            await worker.backend.stop()
            worker.want("room", "new")
            worker.unsubscribe("room", "old")
            await worker.backend.subscribed("room", "new")
            await worker.backend.start()
            await worker.subscribe("room", "new")
            for name in ("old", "new"):
                await worker.publish(name, "room", name)
            await worker.publish("the end")
            await worker.reached_by("new", "the end", in_order=self.one_order)
            assert worker.events == []
        worker = Worker(self.make("unused"))
        await worker.backend.stop()

    @pytest.mark.asyncio
    async def test_it_says_so_while_it_cannot_publish(self) -> None:
        """Before the start and after the stop nothing pretends; in memory there is no such time."""
        worker = Worker(self.make(f"t{secrets.token_hex(6)}"))
        for _ in range(2):
            if self.shared:
                assert not worker.backend.health().ready
                assert worker.backend.health().problem
                with pytest.raises(BackendUnavailable) as unavailable:
                    await worker.publish("nobody hears it")
                assert not unavailable.value.uncertain
            await worker.backend.subscribed("everyone", "")
            await worker.backend.start()
            await worker.backend.stop()
        assert worker.events == []

    @pytest.mark.asyncio
    async def test_a_start_that_is_cancelled_leaves_nothing_behind(self) -> None:
        """Another start works after it."""
        worker = Worker(self.make(f"t{secrets.token_hex(6)}"))
        for delay in (0.0, 0.001, 0.003, 0.01):
            starting = asyncio.create_task(worker.backend.start())
            await asyncio.sleep(delay)
            starting.cancel()
            await asyncio.wait({starting})
            await worker.backend.stop()
        async with worker.running():
            await worker.publish("hi")
            await worker.reached_by("hi")

    @pytest.mark.asyncio
    async def test_a_cancelled_publication_leaves_the_others_alone(self) -> None:
        """It arrives, or it does not; what is published beside it arrives once, in order."""
        async with self.workers() as workers:
            publishing = [
                asyncio.create_task(workers[0].publish(f"{number}")) for number in range(300)
            ]
            await asyncio.sleep(0)
            for task in publishing[1::2]:
                task.cancel()
            await asyncio.wait(publishing)
            await workers[0].publish("the end")
            for worker in workers:
                await worker.hears("the end")
                numbers = [int(text) for text in worker.texts[:-1]]
                assert numbers == sorted(set(numbers))
                assert set(numbers) >= set(range(0, 300, 2))

    @pytest.mark.asyncio
    async def test_prefixes_keep_apps_apart(self) -> None:
        """Two apps on one server do not hear each other, whatever their rooms are called."""
        if not self.shared:
            return
        ours, theirs = Worker(self.make("tenant-a")), Worker(self.make("tenant-b"))
        async with ours.running(), theirs.running():
            for worker in (ours, theirs):
                await worker.subscribe("room", "tea")
            await ours.publish("ours")
            await ours.publish("our tea", "room", "tea")
            await theirs.publish("theirs")
            await theirs.publish("their tea", "room", "tea")
            await ours.reached_by("ours", "our tea", in_order=self.one_order)
            await theirs.reached_by("theirs", "their tea", in_order=self.one_order)

    @pytest.mark.asyncio
    async def test_a_message_over_the_limit_is_refused(self) -> None:
        """Its sender learns the limit; nobody is disturbed."""
        if self.max_payload is None:
            return
        async with self.workers() as workers:
            with pytest.raises(PayloadTooLarge) as too_large:
                await workers[0].publish("x" * self.max_payload)
            assert too_large.value.size > too_large.value.limit == self.max_payload
            longest = "y" * (self.max_payload - 200)
            await workers[0].publish(longest)
            for worker in workers:
                await worker.reached_by(longest)
                assert worker.backend.health().ready
