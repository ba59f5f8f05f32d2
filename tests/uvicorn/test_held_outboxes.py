"""Outboxes of which the system took a part, until that is settled."""

from __future__ import annotations

import asyncio

import pytest

from tests.uvicorn.wires import Network
from wshub import OutboxOptions
from wshub._ring import UNKNOWN


async def test_who_waits_for_one_that_is_held_goes_on() -> None:
    """Until it is drained, and for room in it."""
    network = Network(OutboxOptions(max_messages=1), 1)
    (peer,) = network.peers
    outbox = peer.outbox
    with network.connected():
        network.put(peer)
        batch = outbox.pending
        assert batch is not None
        outbox.hold(batch.count)
        network.put(peer)
        waiting = [
            asyncio.ensure_future(outbox.drained()),
            asyncio.create_task(network.send(peer)),
        ]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        outbox.settle_held(batch, 0)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await asyncio.sleep(0)
        assert peer.wire.messages == [1, 2, 3]
    assert network.counters.queued == 0


@pytest.mark.parametrize("written", [50, UNKNOWN])
async def test_who_is_discarded_while_it_is_held_is_over(written: int) -> None:
    """What it was held for is dropped, and counted so once."""
    network = Network(OutboxOptions(), 1)
    (peer,) = network.peers
    with network.connected():
        network.put(peer)
        batch = peer.outbox.pending
        assert batch is not None
        peer.outbox.hold(batch.count)
        peer.outbox.discard()
        if written == UNKNOWN:
            peer.outbox.lose_held(batch.count, ConnectionAbortedError())
        else:
            peer.outbox.settle_held(batch, written)
    counters = network.counters
    assert (counters.queued, counters.sent, counters.dropped["closed"]) == (0, 0, 1)
    assert peer.evicted == []


@pytest.mark.usefixtures("few")
async def test_what_a_hook_sends_comes_behind_the_rest_of_a_frame(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two took a part of what they were to get; of one the rest cannot be sent any more."""
    network = Network(OutboxOptions(io_uring=True), 2)
    lost, other = network.peers

    def tell(*_: object) -> None:
        lost.outbox.discard()
        network.put(other)

    def refuse(_: bytes, /) -> None:
        raise ConnectionResetError

    with network.connected():
        for peer in network.peers:
            peer.wire.room = 50
        monkeypatch.setattr(lost, "evict", tell)
        monkeypatch.setattr(lost.wire, "write", refuse)
        other.wire.give_room(0)
        network.broadcast()
        await asyncio.sleep(0)
        other.wire.give_room(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert network.rings == 1
        assert other.wire.messages == [1, 2]
    assert network.counters.queued == 0
    assert (network.counters.sent, network.counters.dropped["closed"]) == (2, 1)
