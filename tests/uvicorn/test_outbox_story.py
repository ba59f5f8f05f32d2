"""Whatever happens to framed outboxes, in any order: all is well with what they hold."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Literal

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.uvicorn.wires import Network, Peer
from wshub import OutboxOptions

if TYPE_CHECKING:
    from collections.abc import Callable


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


STEPS = st.one_of(
    st.tuples(st.just("broadcast"), st.integers(126, 900)),
    st.tuples(st.just("put"), st.integers(126, 900)),
    st.tuples(st.just("send"), st.integers(126, 900)),
    st.tuples(st.just("give room"), st.one_of(st.none(), st.integers(1, 1200))),
    st.tuples(st.just("block"), st.integers(0, 1000)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("time"), st.integers(1, 12)),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.sampled_from(["stop", "pour", "discard", "break", "lose"]), st.none()),
)


class Story:
    """Plays steps on two outboxes, and looks after each whether all is well."""

    def __init__(self, options: OutboxOptions) -> None:
        self._options = options
        self._network = Network(options, 2)
        self._senders: list[asyncio.Task[None]] = []

    async def play(self, steps: list[tuple[int, tuple[str, Any]]]) -> int:
        """Return how often many were written to at once."""
        network = self._network
        with network.connected():
            for number, (step, value) in steps:
                await self._take(network.peers[number], step, value)
                self._look()
            for peer in network.peers:
                peer.wire.give_room(None)
                if peer.wire.is_lost:
                    peer.wire.lose()
            for _ in range(10):
                await asyncio.sleep(0)
            for sender in self._senders:
                assert sender.done()
            self._look()
            assert network.counters.queued == 0
            assert network.clock.waiting == 0
            for peer in network.peers:
                if not peer.wire.is_lost and not network.counters.dropped["overflow"]:
                    kept = peer.wire.messages
                    assert kept == peer.outbox.noted[: len(kept)]
            if not any(peer.wire.is_lost for peer in network.peers):
                whole = sum(len(peer.wire.messages) for peer in network.peers)
                assert network.counters.sent <= whole
                if not network.counters.dropped["closed"]:
                    assert network.counters.sent == whole
        return network.rings

    async def _take(self, peer: Peer, step: str, value: Any) -> None:
        network, outbox = self._network, peer.outbox
        if step == "turn":
            await asyncio.sleep(0)
        elif step == "time":
            await network.clock.advance(value)
        else:
            steps: dict[str, Callable[[], object]] = {
                "broadcast": lambda: network.broadcast(value),
                "put": lambda: network.put(peer, value),
                "send": lambda: self._start_to_send(peer, value),
                "cancel": lambda: [sender.cancel() for sender in self._senders[-1:]],
                "block": lambda: setattr(peer.wire, "room", value),
                "give room": lambda: peer.wire.give_room(value),
                "flush": outbox.flush,
                "stop": outbox.stop_accepting,
                "pour": outbox.pour,
                "discard": outbox.discard,
                "break": lambda: setattr(peer.wire, "is_lost", True),
                "lose": peer.wire.lose,
            }
            steps[step]()

    def _start_to_send(self, peer: Peer, size: int) -> None:
        self._senders.append(asyncio.create_task(self._network.send(peer, size)))

    def _look(self) -> None:
        counters, options = self._network.counters, self._options
        put = collected = waiting = 0
        for peer in self._network.peers:
            outbox = peer.outbox
            batch = outbox.pending
            put += len(outbox.noted)
            waiting += outbox.messages
            if batch is not None:
                collected += batch.count
                assert not outbox.messages
                assert batch.count <= options.max_messages
                assert batch.size <= options.max_bytes or batch.count == 1
            queue = outbox._queue
            assert len(queue) <= options.max_messages
            assert outbox.bytes == sum(message.size for message in queue)
            assert outbox.bytes <= options.max_bytes or len(queue) == 1
            numbers = peer.wire.messages
            assert numbers == [number for number in outbox.noted if number in set(numbers)]
            may_miss = options.overflow != "disconnect" and counters.dropped["overflow"]
            assert may_miss or numbers == outbox.noted[: len(numbers)]
        dropped = sum(counters.dropped.values())
        assert counters.sent + counters.queued + collected + dropped == put
        assert counters.queued >= waiting
        assert all(count >= 0 for count in (counters.sent, counters.queued, dropped))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("io_uring", [False, True])
@pytest.mark.parametrize("examples", [150, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("few")
def test_whatever_happens_to_an_outbox(
    loop: str,
    overflow: Literal["disconnect", "drop_oldest", "drop_newest"],
    examples: int,
    *,
    io_uring: bool,
) -> None:
    """Order, bounds and figures hold, and what comes is what was put, each message whole."""
    rings = 0

    # Each of the short ones plays stories of its own, and the same in every run.
    @seed(f"{loop} {overflow} {io_uring}" if examples < 1000 else random.getrandbits(64))
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.lists(st.tuples(st.integers(0, 1), STEPS), max_size=40), st.data())
    def plays(steps: list[tuple[int, tuple[str, Any]]], data: st.DataObject) -> None:
        nonlocal rings
        options = OutboxOptions(
            overflow=overflow,
            io_uring=io_uring,
            max_messages=data.draw(st.integers(1, 5)),
            max_bytes=data.draw(st.integers(300, 3000)),
        )
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            rings += runner.run(Story(options).play(steps))

    plays()
    assert (rings > 0) == io_uring
