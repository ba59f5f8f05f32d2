"""io_uring writes to many sockets as `os.write()` would to each, or says to which it did not."""

from __future__ import annotations

import errno
import gc
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.uvicorn.rings import find_obstacle, needs_ring, overlook, shorten
from wshub._ring import ENTRIES, UNKNOWN, Ring

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def pairs(count: int) -> Iterator[tuple[list[int], list[socket.socket]]]:
    """Give so many sockets, as descriptors, and what reads from their other ends."""
    with ExitStack() as stack:
        mine, theirs = zip(*(socket.socketpair() for _ in range(count)), strict=True)
        for one in (*mine, *theirs):
            stack.enter_context(one).settimeout(0)
        yield [one.fileno() for one in mine], list(theirs)


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
    ("name", "value", "number"),
    [
        ("_MACHINES", (), errno.ENOSYS),
        ("_SUBMIT_ALL", 1 << 31, errno.EINVAL),
        ("_SETUP", -1, errno.ENOSYS),
    ],
)
def test_a_system_without_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, number: int
) -> None:
    """Another kind of machine, a kernel that is too old, and one that has no such call."""
    monkeypatch.setattr(f"wshub._ring.{name}", value)
    with pytest.raises(OSError, match=rf"^\[Errno {number}\] "):
        Ring()
    assert find_obstacle() == f"no io_uring here: {os.strerror(number)}"
