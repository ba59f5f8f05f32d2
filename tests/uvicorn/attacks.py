"""What clients may send to a victim: frames, broken frames, and just bytes."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise
from typing import Any

import uvloop
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.uvicorn.victim import LARGEST, Victim
from wshub.testing import Opcode, frame

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
