"""Clients that send anything: nothing escapes, nothing grows, everybody else is served."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import resource
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.uvicorn.victim import LARGEST, Victim
from wshub.testing import Opcode, frame
from wshub.uvicorn import FanoutProtocol

ROOT = Path(__file__).parents[2]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

MINUTES = 300.0
"""Seconds of the long run."""

GROWTH = 24 * 1024 * 1024
"""Bytes that the process may grow by in the long run; what leaks for each client shows."""


def deflate(payload: bytes) -> bytes:
    """Return what permessage-deflate makes of a payload."""
    encoder = zlib.compressobj(wbits=-12)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]


PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=200).map(deflate),
    st.integers(0, 3 * LARGEST).map(lambda size: deflate(b"x" * size)),
    st.sampled_from([125, 126, 127, 65535, 65536, LARGEST, LARGEST + 1]).map(
        lambda size: b"x" * size
    ),
    st.tuples(st.integers(0, 5000), st.text(max_size=50)).map(
        lambda close: close[0].to_bytes(2) + close[1].encode()
    ),
)

FRAMES = st.builds(
    frame,
    st.one_of(st.sampled_from([0, 1, 2, 8, 9, 10]), st.integers(0, 15)),
    PAYLOADS,
    fin=st.sampled_from([True, True, True, False]),
    mask=st.sampled_from([True] * 9 + [False]),
    reserved=st.sampled_from([0, 0, 0, 4, 4, 7]),
)


PLAIN_FRAMES = st.sampled_from(
    [
        frame(Opcode.TEXT, b"hello"),
        frame(Opcode.TEXT, b"\xff"),
        frame(Opcode.TEXT, b"\xc3", fin=False),
        frame(Opcode.CONTINUATION, b"\xa4"),
        frame(Opcode.PING, b"?"),
        frame(Opcode.CLOSE),
        frame(Opcode.CLOSE, (1000).to_bytes(2)),
    ]
)

MANY_FRAMES = st.builds(
    lambda one, count: one * count,
    st.one_of(PLAIN_FRAMES, FRAMES),
    st.sampled_from([1] * 8 + [40, 400]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Make a few frames, some of them broken, or just bytes."""
    data = bytearray(b"".join(draw(st.lists(MANY_FRAMES, max_size=8))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "insert", "cut", "repeat"]))
        if how == "flip" and place < len(data):
            data[place] ^= draw(st.integers(1, 255))
        elif how == "insert":
            data[place:place] = draw(st.binary(max_size=20))
        elif how == "cut":
            del data[place : place + draw(st.integers(0, 20))]
        else:
            data[place:place] = data[place : place + 200] * draw(st.integers(1, 5))
    return bytes(data)


@st.composite
def attacks(draw: st.DrawFn) -> dict[str, Any]:
    """Make the arguments of `Victim.suffer()`."""
    stream = draw(st.one_of(streams(), st.binary(max_size=400)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(bounds)]
    return {
        "pieces": pieces[1:] if draw(st.booleans()) else pieces,
        "early": draw(st.sampled_from([b"", b"", b"", pieces[0]])),
        "deflate": draw(st.booleans()),
        "reads": draw(st.booleans()),
        "floods": draw(st.sampled_from([False, False, False, True])),
    }


def fuzz(loop: str, examples: int, number: int) -> None:
    """Run one victim against so many attacks."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        victim = runner.run(Victim().__aenter__())

        @seed(number)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # with a list of frames to look at, small enough
        )
        @given(attacks())
        def attack(arguments: dict[str, Any]) -> None:
            runner.run(victim.suffer(**arguments))

        attack()
        runner.run(victim.__aexit__())


def living() -> int:
    """Return how many protocols there are."""
    gc.collect()
    return sum(isinstance(each, FanoutProtocol) for each in gc.get_objects())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.timeout(300)
def test_clients_may_send_anything(loop: str) -> None:
    """No exception reaches the loop or the log, and a bystander is served after each of them."""
    before = living()
    fuzz(loop, 400, 1)
    assert living() == before


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.timeout(900)
def test_clients_may_send_anything_for_minutes(loop: str) -> None:
    """The same with other attacks all the time; the process does not grow."""
    end, number, size = time.monotonic() + MINUTES / len(LOOPS), 2, 0
    while time.monotonic() < end:
        fuzz(loop, 300, number)
        number += 1
        gc.collect()
        if number == 5:
            size = resident()
    assert number > 5
    assert resident() - size < GROWTH


def resident() -> int:
    """Return how many bytes of memory the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
def test_clients_may_send_what_reaches_most_of_the_code() -> None:
    """The same with bytes that a fuzzer chooses by the branches that they lead to."""
    command = [sys.executable, "-m", "tests.uvicorn.fuzz_bytes", "-max_total_time=150"]
    ran = subprocess.run(
        [*command, "-rss_limit_mb=1024", "-timeout=20"],
        cwd=ROOT,
        capture_output=True,
        timeout=350,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")[-5000:]
    assert b"Done " in ran.stderr
