"""One system call for many peers, by io_uring: nobody notices which of the two it is."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
from tests.uvicorn.wires import Network
from wshub import ConnectionEnded, ConnectionManager, OutboxOptions
from wshub._batch import Batch
from wshub._ring import ENTRIES, UNKNOWN, Ring
from wshub.testing import StalledClient, connect, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from wshub import Event
    from wshub._frames import FrameForm
    from wshub.testing import Client


def find_obstacle() -> str | None:
    """Return why there is no ring here, or None."""
    try:
        Ring()
    except OSError as error:  # pragma: no cover  (where there is one)
        return f"no io_uring here: {error.strerror}"
    return None


OBSTACLE = find_obstacle()
needs_ring = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of peers be enough for it."""
    monkeypatch.setattr("wshub._flush.FEW", 0)


@contextmanager
def pairs(count: int) -> Iterator[tuple[list[int], list[socket.socket]]]:
    """Give so many sockets, as descriptors, and what reads from their other ends."""
    with ExitStack() as stack:
        mine, theirs = zip(*(socket.socketpair() for _ in range(count)), strict=True)
        for one in (*mine, *theirs):
            stack.enter_context(one).settimeout(0)
        yield [one.fileno() for one in mine], list(theirs)


def shorten(ring: Ring) -> None:
    """Let the kernel be asked for one write less than `ring` asks for."""
    call = ring._call

    def ask(number: int, descriptor: int, count: int, least: int, *rest: object) -> int:
        return int(call(number, descriptor, count - 1, least - 1, *rest))

    ring._call = ask  # type: ignore[assignment]


def overlook(ring: Ring, count: int) -> None:
    """Let so many of the writes that were done first seem not to be."""
    call = ring._call

    def ask(*arguments: object) -> int:
        taken = int(call(*arguments))
        ring._seen[0] += count
        return taken

    ring._call = ask  # type: ignore[assignment]


# --- the ring


@needs_ring
def test_each_socket_is_given_what_is_for_it() -> None:
    """Whatever the number, also where what the kernel shares with us begins anew."""
    ring = Ring()
    with pairs(ENTRIES // 2) as (descriptors, others):
        twice = descriptors * 2
        expected = [b""] * len(others)
        for count in (1, 100, ENTRIES, 200, ENTRIES - 1, 3, ENTRIES):
            half = count // 2
            runs = [(twice[:half], b"a" * count), (twice[half:count], b"b")]
            assert ring.send(runs) == [count] * half + [1] * (count - half)
            for number in range(count):
                expected[number % len(others)] += b"a" * count if number < half else b"b"
        assert [other.recv(10_000) for other in others] == expected
        assert not ring.is_broken


@needs_ring
def test_what_a_socket_does_not_take_is_told() -> None:
    """All of it, a part, nothing, because it is full, closed or none: as `os.write()` would."""
    ring = Ring()
    with pairs(4) as (descriptors, others):
        full, part, closed, good = descriptors
        while ring.send([([full], bytes(100_000))])[0] > 0:
            pass
        others[2].close()
        large = bytes(10_000_000)
        results = ring.send([([part], large), ([full, closed, good], b"x"), ([-1], b"x")])
        assert 0 < results[0] < len(large)
        assert results[1:] == [-errno.EAGAIN, -errno.EPIPE, 1, -errno.EBADF]
        assert not ring.is_broken


@needs_ring
def test_a_result_is_that_of_its_socket() -> None:
    """In whatever order the kernel tells of them."""
    ring = Ring()
    swapped = memoryview(ring._descriptors.obj).cast("Q")[4::8]
    swapped[0], swapped[1] = swapped[1], swapped[0]
    with pairs(1) as (descriptors, _):
        assert ring.send([([descriptors[0], -1, descriptors[0]], b"xyz")]) == [-errno.EBADF, 3, 3]
    assert not ring.is_broken


@contextmanager
def broken(ring: Ring) -> Iterator[None]:
    """Let the descriptor of `ring` be that of something else for the length of the block."""
    kept = os.dup(ring._descriptor)
    with Path(os.devnull).open("rb") as other:
        os.dup2(other.fileno(), ring._descriptor)
    try:
        yield
    finally:
        os.dup2(kept, ring._descriptor)
        os.close(kept)


@needs_ring
def test_a_ring_that_breaks_has_written_nothing() -> None:
    """Whoever asked is told so, and can do it otherwise."""
    ring = Ring()
    with pairs(2) as (descriptors, others):
        with broken(ring):
            assert ring.send([(descriptors, b"x")]) == []
        assert ring.is_broken
        assert ring.send([(descriptors[:1], b"y")]) == [1]  # and nothing of before
        with pytest.raises(BlockingIOError):
            others[1].recv(1)
        assert others[0].recv(2) == b"y"


@needs_ring
def test_a_ring_that_takes_less_says_to_whom_it_wrote() -> None:
    """The others may be written to in another way."""
    ring = Ring()
    shorten(ring)
    with pairs(3) as (descriptors, others):
        assert ring.send([(descriptors, b"x")]) == [1, 1]
        assert ring.is_broken
        assert [other.recv(2) for other in others[:2]] == [b"x", b"x"]
        with pytest.raises(BlockingIOError):
            others[2].recv(1)


@needs_ring
def test_what_the_kernel_does_not_tell_of_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it may still read is kept."""
    kept: list[object] = []
    monkeypatch.setattr("wshub._ring._still_read", kept)
    ring = Ring()
    overlook(ring, 1)
    with pairs(3) as (descriptors, _):
        runs = [(descriptors, b"x")]
        assert ring.send(runs) == [UNKNOWN, 1, 1]
    assert ring.is_broken
    assert kept == [(ring, runs)]


@needs_ring
def test_a_process_that_was_forked_leaves_the_ring_alone() -> None:
    """It would write to sockets of the other, whose memory the ring is in."""
    code = """
import os, socket
from wshub._ring import Ring
ring = Ring()
mine, other = socket.socketpair()
child = os.fork()
if not child:
    print(ring.send([([mine.fileno()], b"x")]), ring.is_broken, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(ring.send([([mine.fileno()], b"y")]), other.recv(2))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout == "[] True\n[1] b'y'\n"
    ring = Ring()
    ring._process = -1
    assert ring.send([([1], b"x")]) == []
    assert ring.is_broken


@needs_ring
def test_a_ring_that_is_let_go_has_no_descriptors() -> None:
    """Neither of itself nor of what is mapped."""
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    ring = Ring()
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 4
    del ring
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("name", "value"), [("_MACHINES", ()), ("_SUBMIT_ALL", 1 << 31), ("_SETUP", -1)]
)
def test_a_system_without_it(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Another kind of machine, a kernel that is too old, and one that has no such call."""
    monkeypatch.setattr(f"wshub._ring.{name}", value)
    with pytest.raises(OSError):  # noqa: PT011  (which number, the kernel decides)
        Ring()


# --- outboxes


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


async def test_what_a_hook_sends_comes_behind_the_rest_of_a_frame() -> None:
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
        lost.evict = tell  # type: ignore[method-assign,assignment]
        lost.wire.write = refuse  # type: ignore[method-assign]
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


# --- the manager


def manage(**options: object) -> ManagedApp:
    """Return an app that may use a ring."""
    outbox = OutboxOptions(io_uring=True)
    return ManagedApp(hear_nothing, ConnectionManager(outbox=outbox, **options))  # type: ignore[arg-type]


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
    managed = manage(hooks=[hear])
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

        def fail(*arguments: object) -> None:
            call(*arguments)
            raise MemoryError

        ring._call = fail  # type: ignore[assignment]
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
