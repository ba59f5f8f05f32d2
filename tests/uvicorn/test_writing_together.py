"""One system call for many peers, by io_uring: nobody notices which of the two it is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.fanout import (
    SEND_BUFFER,
    fill_to_the_brim,
    frames_until,
    opened,
    serve,
    watched_writes,
)
from tests.uvicorn.rings import needs_ring, overlook, shorten
from wshub import ConnectionEnded, ConnectionManager, OutboxOptions
from wshub._batch import Batch
from wshub._ring import Ring
from wshub.testing import StalledClient, connect, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from wshub import Event, Hook
    from wshub._frames import FrameForm
    from wshub.testing import Client


pytestmark = pytest.mark.usefixtures("few")


def manage(*hooks: Hook) -> ManagedApp:
    """Return an app that may use a ring."""
    outbox = OutboxOptions(io_uring=True)
    return ManagedApp(hear_nothing, ConnectionManager(outbox=outbox, hooks=hooks))


@asynccontextmanager
async def trio(managed: ManagedApp) -> AsyncGenerator[list[Client], None]:
    """Serve `managed` to three clients."""
    async with serve(managed) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(f"{server.ws}/ws")) for _ in range(3)]
        await opened(managed, 3)
        yield clients


async def ring_of(managed: ManagedApp, clients: list[Client]) -> Ring:
    """Return what it writes with, from its first broadcast on."""
    await managed.manager.broadcast("0")
    for client in clients:
        assert await client.receive() == "0"
    ring = managed.manager._hub.flush._ring
    assert ring is not None
    return ring


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by how many writes each system call was for."""
    found: list[int] = []
    send = Ring.send

    def note(ring: Ring, runs: Sequence[tuple[Sequence[int], bytes]]) -> list[int]:
        found.append(sum(len(descriptors) for descriptors, _ in runs))
        return send(ring, runs)

    monkeypatch.setattr(Ring, "send", note)
    return found


@needs_ring
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_broadcast_takes_one_system_call(
    monkeypatch: pytest.MonkeyPatch, calls: list[int], compression: str | None
) -> None:
    """For all, and nobody is written to in another way; a few are quicker one by one."""
    managed = manage()
    async with serve(managed) as server, AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(f"{server.ws}/ws", compression=way))
            for way in [None] * 3 + [compression] * 3
        ]
        await opened(managed, 6)
        with watched_writes(monkeypatch) as writes:
            for number in range(3):
                await managed.manager.broadcast(f"{number}" * 200)
                await managed.opened[0].send("for one")
                for client in clients:
                    assert await client.receive() == f"{number}" * 200
                assert await clients[0].receive() == "for one"
            assert writes.made == []
            assert calls == [6] * 3
            monkeypatch.setattr("wshub._flush.FEW", 6)
            await managed.manager.broadcast("few")
            for client in clients:
                assert await client.receive() == "few"
            assert len(writes.made) == 6
    assert managed.manager.statistics().sent == 6 * 4 + 3


@needs_ring
async def test_a_peer_that_blocks_is_in_nobodys_way(calls: list[int]) -> None:
    """It gets all that waits for it, in order, once it reads."""
    managed = manage()
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        StalledClient(f"{server.ws}/ws") as stalled,
        connect(f"{server.ws}/ws") as client,
    ):
        blocked, _ = await opened(managed, 2)
        fill_to_the_brim(blocked)
        for number in range(5):
            await managed.manager.broadcast(f"{number}" * 1000)
            assert await client.receive() == f"{number}" * 1000
        assert blocked.outbox.messages == 5
        assert calls == [2, 1, 1, 1, 1]
        frames = await frames_until(stalled, lambda frame: frame.payload == b"4" * 1000)
        assert [frame.payload[:1] for frame in frames[-5:]] == [b"0", b"1", b"2", b"3", b"4"]
    assert managed.manager.statistics().sent == 10


@needs_ring
async def test_a_ring_that_breaks_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those to whom it has not written are written to one by one, then and from then on."""
    managed = manage()
    async with trio(managed) as clients:
        shorten(await ring_of(managed, clients))
        with watched_writes(monkeypatch) as writes:
            for number in "12":
                await managed.manager.broadcast(number)
                for client in clients:
                    assert await client.receive() == number
            assert len(writes.made) == 1 + 3
    assert caplog.text.count("io_uring does not work any longer") == 1
    assert managed.manager.statistics().sent == 9


@needs_ring
@pytest.mark.parametrize("hook", [None, asyncio.CancelledError])
async def test_who_may_have_got_a_part_gets_nothing_more(
    monkeypatch: pytest.MonkeyPatch, hook: type[BaseException] | None
) -> None:
    """It is cut off, and nobody else is, whatever a hook raises that hears of it."""

    def hear(event: Event) -> None:
        if hook is not None and isinstance(event, ConnectionEnded) and event.evicted:
            raise hook

    monkeypatch.setattr("wshub._ring._still_read", [])
    managed = manage(hear)
    async with trio(managed) as clients:
        overlook(await ring_of(managed, clients), 2)
        await managed.manager.broadcast("1")
        assert await clients[2].receive() == "1"
        await until(lambda: sum(one.closed is None for one in managed.opened) == 1)
        await managed.manager.broadcast("2")
        assert await clients[2].receive() == "2"
    figures = managed.manager.statistics()
    assert (figures.sent, figures.dropped["closed"], figures.queued) == (5, 2, 0)
    assert figures.evicted["write_failed"] == 2


@needs_ring
async def test_nobody_is_written_to_twice() -> None:
    """If it fails while the kernel writes, as by a signal's handler, all are cut off."""
    managed = manage()
    async with trio(managed) as clients:
        ring = await ring_of(managed, clients)
        call = ring._call

        def fail(*arguments: object) -> NoReturn:
            call(*arguments)
            raise MemoryError

        ring._call = fail
        await managed.manager.broadcast("1")
        for client in clients:
            assert await client.receive() == "1"
            with pytest.raises(ConnectionClosedError):
                await client.receive()
    figures = managed.manager.statistics()
    assert (figures.sent, figures.dropped["closed"], figures.queued) == (3, 3, 0)


@needs_ring
async def test_what_fails_before_has_lost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was to be written to is in the next turn."""
    managed = manage()
    async with trio(managed) as clients:
        await ring_of(managed, clients)

        frames = Batch.frames
        made: list[bytes] = []

        def fail_once(batch: Batch, form: FrameForm) -> bytes:
            made.append(frames(batch, form))
            if len(made) == 2:
                raise MemoryError
            return made[-1]

        monkeypatch.setattr(Batch, "frames", fail_once)
        await managed.opened[0].send("for one")
        await managed.manager.broadcast("for all")
        assert [await client.receive() for client in clients] == ["for one", *["for all"] * 2]
        assert await clients[0].receive() == "for all"
    assert managed.manager.statistics().sent == 3 + 4


async def test_without_io_uring_each_peer_gets_a_system_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so, once in an event loop."""
    monkeypatch.setattr("wshub._ring._SETUP", -1)
    managed = manage()
    async with (
        serve(managed) as server,
        connect(f"{server.ws}/ws") as ann,
        connect(f"{server.ws}/ws") as ben,
    ):
        await opened(managed, 2)
        for number in "12":
            await managed.manager.broadcast(number)
            assert [await client.receive() for client in (ann, ben)] == [number] * 2
    assert caplog.text.count("io_uring is not to be had (") == 1
