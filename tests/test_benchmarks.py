"""The benchmarks still run: each of them once, with a handful of connections."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from websockets.frames import Frame, Opcode

if sys.platform != "linux":  # pragma: no cover (they read what only Linux tells)
    pytest.skip("the benchmarks need Linux", allow_module_level=True)

from benchmarks import fanout, handshakes, memory, scale, stalled
from benchmarks.frames import FrameReader

if TYPE_CHECKING:
    from benchmarks.__main__ import Measurement


# Each starts several servers, beside which other tests may run.
pytestmark = pytest.mark.timeout(180)


def rows_of(module: Measurement, **plan: Any) -> list[Any]:
    """Measure, and check that what was found can be shown."""
    rows = module.measure(module.Plan(**plan))
    for table in module.tables(rows).values():
        head, marks, *body = table.splitlines()
        assert body
        assert {line.count("|") for line in (marks, *body)} == {head.count("|")}
    for chart in module.charts(rows).values():
        assert chart.startswith("<svg ")
        assert chart.endswith("</svg>\n")
    return rows


def test_fanout_measures_every_way() -> None:
    """Each way has a cost, and the tutorial's is the unit."""
    setups = [fanout.Setup("websockets-sansio", "asyncio")]
    rows = rows_of(fanout, setups=setups, recipients=3, warmup=1, messages=3, rounds=2, starts=1)
    assert [row.way for row in rows] == [way.label for way in fanout.WAYS]
    assert all(row.cost.median > 0 for row in rows)
    assert rows[0].ratio.median == 1


def test_stalled_clients_stop_the_tutorial_and_not_wshub() -> None:
    """One client that never reads, and messages that fill what is in front of it."""
    plan = {"clients": 4, "stalled": 1, "size": 128 * 1024, "rate": 50, "seconds": 0.5, "rounds": 1}
    rows = {row.case: row for row in rows_of(stalled, **plan, patience=0.5)}
    assert rows[stalled.TUTORIAL_STALLED.label].delivered < 1
    assert all(rows[case.label].delivered == 1 for case in stalled.REPEATED)
    assert rows[stalled.CUT_OFF.label].cut_off == 1
    assert rows[stalled.KEPT.label].cut_off == 0


def test_scale_measures_every_operation() -> None:
    """Rooms included, which only wshub has."""
    # Of very few operations the clock of the processor may show nothing.
    rows = rows_of(scale, servers=["hub"], small=40, large=80, deliveries=160, rounds=1)
    assert [row.operation for row in rows] == list(scale.OPERATIONS)


def test_memory_tells_the_parts_of_a_connection_apart() -> None:
    """Python's own account is exact also for a few connections."""
    rows = {row.item: row for row in rows_of(memory, connections=10, traced=20, rounds=1)}
    assert rows[memory.WITHOUT].traced > rows["wshub as a whole"].traced > 0
    assert rows["being in a room of 100"].traced > 0


def test_a_flood_of_handshakes_is_refused() -> None:
    """With the limit and without it, while messages reach those who are connected."""
    rows = rows_of(handshakes, clients=2, flood=100, seconds=0.5, rounds=1)
    assert [row.refused > 0 for row in rows] == [False, True] * 3
    assert [row.ratio is None for row in rows] == [True, False] * 3


@pytest.mark.parametrize("step", [1, 7, 33, 1_000_000])
def test_the_load_generator_counts_frames_however_they_arrive(step: int) -> None:
    """Control frames do not count, and times are found in frames of any length."""
    sizes = [0, 1, 19, 20, 64, 125, 126, 300, 70_000]
    messages = [(f"@{size:019}" if size > 64 else "").ljust(size, "x") for size in sizes]
    frames = [Frame(Opcode.TEXT, message.encode()) for message in messages]
    frames[3:3] = [Frame(Opcode.PING, b"are you there?")]
    data = b"".join(frame.serialize(mask=False) for frame in frames)
    found: list[int] = []
    reader = FrameReader(found.append)
    for start in range(0, len(data), step):
        reader.feed(memoryview(data)[start : start + step])
    assert found == [size if size > 64 else 0 for size in sizes]
