"""The benchmarks still run: each of them once, with a handful of connections."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import zlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

if sys.platform != "linux":  # pragma: no cover (they read what only Linux tells)
    pytest.skip("the benchmarks need Linux", allow_module_level=True)

from benchmarks import chat, fanout, handshakes, idle, memory, peers, scale, stalled, workers
from benchmarks.dialect import DIALECTS, mask
from benchmarks.figures import Figure
from benchmarks.frames import FrameReader
from benchmarks.load import Client
from benchmarks.machine import file_limit
from benchmarks.process import Process
from benchmarks.stages import BURST, SINGLE, WAYS, Stage, Traffic
from benchmarks.talk import Talk
from benchmarks.texts import texts
from benchmarks.ways import FANOUT, FLOOR, STOCK, WEBSOCKETS, Way

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.__main__ import Measurement


# Each starts several servers, beside which other tests may run.
pytestmark = pytest.mark.timeout(180)


needs_fanout = pytest.mark.skipif(
    find_spec("wshub.uvicorn") is None, reason="FanoutProtocol was taken out"
)


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


def found_by_label(rows: Iterable[Any], *ways: Way) -> dict[str, Any]:
    """Return what was measured; what was not says why, and is none of `ways`."""
    rows = list(rows)
    assert all((row.obstacle is None) == (row.is_measured) for row in rows)
    found = {row.way: row for row in rows if row.is_measured}
    assert found.keys() >= {way.label for way in ways}
    return found


@needs_fanout
def test_peers_measures_every_way_that_is_installed() -> None:
    """One message in each turn, several, and compressed ones, which are smaller on the wire."""
    single, burst = Traffic(messages=3), Traffic(per_turn=2, messages=4)
    json = Traffic(size=512, messages=3, kind="json")
    stages = [
        Stage("asyncio", 3, (single, burst), starts=1),
        Stage("asyncio", 3, (json,), is_compressed=True, starts=1),
    ]
    rows = rows_of(peers, stages=stages, rounds=2)
    assert [row.way for row in rows[: len(WAYS)]] == [way.label for way in WAYS]
    for row in found_by_label(rows[: len(WAYS)], WEBSOCKETS, STOCK, FANOUT).values():
        assert row.cost.median > 0
        assert row.wire >= 66
    compressed = found_by_label(rows[2 * len(WAYS) :], WEBSOCKETS, STOCK, FANOUT)
    assert {row.wire < 400 for row in compressed.values()} == {True}
    assert compressed[FANOUT.label].ratio.median == 1


def test_peers_says_why_something_is_not_measured() -> None:
    """More connections than a process may have; and the tables can be shown."""
    stages = [Stage("asyncio", file_limit(), (SINGLE, BURST))]
    rows = rows_of(peers, stages=[*stages, stages[0]._replace(is_compressed=True)], rounds=1)
    assert {row.obstacle for row in rows} == {f"a process may open only {file_limit():,} files"}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed, and a compiler."""
    assert Way("a library", "library", requires="no_such_library").obstacle() == (
        "`no_such_library` is not installed"
    )
    monkeypatch.setenv("PATH", "")
    assert FLOOR.obstacle() == "there is no C compiler `cc`"


@needs_fanout
def test_a_chat_reaches_everybody() -> None:
    """Three people, everyone speaking five times a second."""
    plan = {"period": 0.2, "warmup": 0.2, "seconds": 0.4, "patience": 30, "rounds": 1}
    rows = rows_of(chat, setups=[chat.Setup(3, "asyncio")], **plan)
    for row in found_by_label(rows, WEBSOCKETS, STOCK, FANOUT).values():
        assert row.delivered == 1
        assert row.p99.median >= row.p50.median > 0
        assert row.share.median > 0


def test_a_server_that_does_not_keep_up_has_no_latency() -> None:
    """What was delivered in time of a queue that grows says nothing."""
    figure = Figure(1, 1, 1)
    late = chat.Row("x", "asyncio", 3, share=figure, p50=figure, p99=figure, delivered=0.5)
    table = chat.tables([late])["chat"]
    assert "| 50 % | grows | grows |" in table
    assert "does not keep up" in chat.charts([late])["chat-latency"]


@needs_fanout
def test_idle_measures_connections_with_and_without_compression() -> None:
    """The plain endpoint is what others are compared with."""
    rows = rows_of(idle, connections=40, warmup=2, rounds=1)
    assert [row.is_compressed for row in rows] == [False] * 6 + [True] * 6
    for part in (rows[:6], rows[6:]):
        found = found_by_label(part, idle.ENDPOINT, STOCK, FANOUT)
        assert found[idle.ENDPOINT.label].size.median > 0
        assert found[idle.ENDPOINT.label].above.median == 0


@pytest.mark.parametrize(
    ("work", "is_in_kernel"), [("sum(range(100_000))", False), ("os.listdir('/proc')", True)]
)
def test_processor_time_is_told_apart(work: str, *, is_in_kernel: bool) -> None:
    """Whether a process computes itself, or has the kernel do something."""
    code = (
        "import os, time\n"
        f"while time.process_time() < 0.5: {work}\n"
        "print('{}', flush=True); input()"
    )
    with Process(sys.executable, "-c", code, core=None) as process:
        process.answer()
        system, user = process.cpu_ticks
        assert (system > user) == is_in_kernel
        assert system + user > 0


def test_who_is_pinned_still_knows_the_other_processor() -> None:
    """The benchmark shares one with the load generator, and must not send the server there."""
    code = (
        "from benchmarks.machine import cores, pin\n"
        "first = cores(); pin(first[1]); print(first == cores())"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout == b"True\n"


@needs_fanout
def test_workers_measures_every_contestant_that_is_installed() -> None:
    """Two rooms with somebody on either worker; the broker is given each message once."""
    nowhere = workers.Contestant(STOCK._replace(label="nowhere"), "a broker that nobody has")
    contestants = (*workers.CONTESTANTS, nowhere)
    plan = {"contestants": contestants, "setups": [workers.Setup(2, 1, 50)], "patience": 10}
    brief = {"warmup": 0.2, "seconds": 0.4, "trial": 0.2, "lag": 0.2, "steps": 1, "rounds": 1}
    rows = rows_of(workers, **plan, **brief)
    assert [row.way for row in rows] == [one.way.label for one in contestants]
    assert rows[-1].obstacle == "no server for it: a broker that nobody has"
    ours = [one.way for one in contestants if one.is_target]
    for row in found_by_label(rows, *ours).values():
        assert row.delivered == row.published == 1
        assert row.p99.median >= row.p50.median > 0
        assert row.rate.median > 0


def test_a_talk_keeps_to_its_schedule() -> None:
    """Whoever speaks late does so at once, one at a time, and says when it really was."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        speaker = Client(ours, lambda _: None, DIALECTS["plain"], port=0)
        talk = Talk([speaker, speaker], seconds=0.02, period=0.01, size=30)
        assert talk.count == 4
        while time.monotonic_ns() < talk.end:
            pass
        due: list[int] = []
        for said in (1, 2, 3, 4, 4):
            due.append(talk.due)
            talk.say_due()
            assert len(talk.lateness) == said
        stamps: list[int] = []
        data = theirs.recv(4 * (6 + 30))
        for start in range(0, len(data), 36):
            FrameReader(stamps.append).feed(memoryview(b"\x81\x1e" + data[start + 6 : start + 36]))
        assert len(stamps) == 4
        assert talk.end <= stamps[0] <= stamps[-1]
        assert stamps == sorted(stamps)
        assert list(talk.lateness) == [stamp - at for stamp, at in zip(stamps, due, strict=False)]


@pytest.mark.parametrize("size", [0, 125, 126, 0xFFFF, 0x10000])
def test_what_clients_say_is_masked_frames(size: int) -> None:
    """Of any length."""
    reader = StreamReader()
    reader.feed_data(mask(b"x" * size))
    parser = Frame.parse(reader.read_exact, mask=True)
    with pytest.raises(StopIteration) as parsed:
        next(parser)
    assert parsed.value.value == Frame(Opcode.TEXT, b"x" * size)


def test_json_is_as_hard_to_compress_as_that_of_an_application() -> None:
    """Every message is another one, of the size that is asked for."""
    messages = [text.encode() for text in texts("json", 512)]
    assert {len(message) for message in messages} == {512}
    assert len(set(messages)) == len(messages)
    assert 250 < sum(len(zlib.compress(message)) for message in messages) / len(messages) < 400


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
