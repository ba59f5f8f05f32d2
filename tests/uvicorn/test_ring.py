"""One system call for many peers, by io_uring: nobody notices which of the two it is."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.fanout import (
    SEND_BUFFER,
    descriptor_of,
    fill_to_the_brim,
    frames_until,
    opened,
    serve,
    watched_writes,
)
from wshub import ConnectionManager, MessagesDropped, OutboxOptions
from wshub._ring import ENTRIES, Ring
from wshub.testing import StalledClient, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wshub import Event


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


# --- the ring


@needs_ring
def test_each_socket_is_given_what_is_for_it() -> None:
    """Whatever the number, also where what the kernel shares with us begins anew."""
    ring = Ring()
    with pairs(ENTRIES) as (descriptors, others):
        expected = [b""] * ENTRIES
        for count in (1, 100, ENTRIES, 200, ENTRIES - 1, 3, ENTRIES):
            half = count // 2
            runs = [(descriptors[:half], b"a" * count), (descriptors[half:count], b"b")]
            assert ring.send(runs) == [count] * half + [1] * (count - half)
            for number in range(count):
                expected[number] += b"a" * count if number < half else b"b"
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
def test_a_process_that_was_forked_leaves_the_ring_alone() -> None:
    """It would write to sockets of the other, whose memory the ring is in."""
    ring = Ring()
    with pairs(1) as (descriptors, others):
        child = os.fork()
        if not child:  # pragma: no cover  (another process)
            os._exit(ring.send([(descriptors, b"x")]) != [] or not ring.is_broken)
        assert os.waitpid(child, 0) == (child, 0)
        assert ring.send([(descriptors, b"y")]) == [1]
        assert others[0].recv(2) == b"y"
        ring._process = child
        assert ring.send([(descriptors, b"x")]) == []
        assert ring.is_broken


@pytest.mark.parametrize(
    ("name", "value"), [("_MACHINES", ()), ("_SUBMIT_ALL", 1 << 31), ("_SETUP", -1)]
)
def test_a_system_without_it(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Another kind of machine, a kernel that is too old, and one that has no such call."""
    monkeypatch.setattr(f"wshub._ring.{name}", value)
    with pytest.raises(OSError):  # noqa: PT011  (which number, the kernel decides)
        Ring()


# --- the manager


def manage(**options: object) -> ManagedApp:
    """Return an app that may use a ring."""
    outbox = OutboxOptions(io_uring=True)
    return ManagedApp(hear_nothing, ConnectionManager(outbox=outbox, **options))  # type: ignore[arg-type]


@needs_ring
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_broadcast_takes_one_system_call(
    monkeypatch: pytest.MonkeyPatch, compression: str | None
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
            monkeypatch.setattr("wshub._flush.FEW", 6)
            await managed.manager.broadcast("few")
            for client in clients:
                assert await client.receive() == "few"
            assert len(writes.made) == 6
    assert managed.manager.statistics().sent == 6 * 4 + 3


@needs_ring
async def test_a_peer_that_blocks_is_in_nobodys_way() -> None:
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
        frames = await frames_until(stalled, lambda frame: frame.payload == b"4" * 1000)
        assert [frame.payload[:1] for frame in frames[-5:]] == [b"0", b"1", b"2", b"3", b"4"]
    assert managed.manager.statistics().sent == 10


@needs_ring
@pytest.mark.parametrize("what", ["sends", "aborts"])
async def test_a_hook_may_do_as_it_likes_with_those_that_are_not_settled(what: str) -> None:
    """What it sends to a peer that blocks comes behind what that one has not taken yet."""

    def hear(event: Event) -> None:
        if isinstance(event, MessagesDropped) and event.connection is gone:
            if what == "sends":
                blocked.send_nowait("from the hook")
            else:
                blocked.abort()

    managed = manage(hooks=[hear])
    async with (
        serve(managed, send_buffer=SEND_BUFFER) as server,
        connect(f"{server.ws}/ws"),
        StalledClient(f"{server.ws}/ws") as stalled,
        connect(f"{server.ws}/ws") as client,
    ):
        gone, blocked, _ = await opened(managed, 3)
        fill_to_the_brim(blocked)
        gone.outbox.descriptor = 1_000_000  # type: ignore[attr-defined]
        await managed.manager.broadcast("to all")
        assert await client.receive() == "to all"
        assert gone.closed is not None
        if what == "sends":
            frames = await frames_until(stalled, lambda frame: frame.payload == b"from the hook")
            assert frames[-2].payload == b"to all"
    figures = managed.manager.statistics()
    assert figures.queued == 0
    assert (figures.sent, figures.dropped["closed"]) == ((3, 1) if what == "sends" else (1, 2))


@needs_ring
async def test_a_ring_that_breaks_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those to whom it has not written are written to one by one, then and from then on."""
    managed = manage()
    async with serve(managed) as server, AsyncExitStack() as stack:
        url = f"{server.ws}/ws"
        clients = [await stack.enter_async_context(connect(url)) for _ in range(3)]
        await opened(managed, 3)
        await managed.manager.broadcast("0")
        for client in clients:
            assert await client.receive() == "0"
        ring = managed.manager._hub.flush._ring
        assert ring is not None
        with broken(ring), watched_writes(monkeypatch) as writes:
            for number in "12":
                await managed.manager.broadcast(number)
                for client in clients:
                    assert await client.receive() == number
            assert len(writes.made) == 6
    assert caplog.text.count("io_uring does not work any longer") == 1
    assert managed.manager.statistics().sent == 9


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
    assert descriptor_of(managed.opened[0]) == -1
