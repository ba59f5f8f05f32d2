"""Sending one message to many, beside other libraries and beside the least that it can cost."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.machine import file_limit
from benchmarks.report import table
from benchmarks.rounds import interleave
from benchmarks.stages import FULL, KIB, QUICK, Plan
from benchmarks.ways import FANOUT, FLOOR, LITESTAR, RING, SOCKETIO, WEBSOCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.process import Delivery, Rig
    from benchmarks.stages import Stage, Traffic
    from benchmarks.ways import Way

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

SPARE_FILES = 100
"""What a process has open besides its connections, generously."""

# What a delivery by `FanoutProtocol` may cost at most, in units of another way.
SINGLE_TARGETS = {
    FLOOR.label: 1.3,
    WEBSOCKETS.label: 0.65,
    LITESTAR.label: 0.4,
    SOCKETIO.label: 0.15,
}
BURST_TARGETS = {WEBSOCKETS.label: 0.12}
COMPRESSED_TARGETS = {WEBSOCKETS.label: 0.4}


@dataclass(frozen=True)
class Row:
    """
    One way under one load.

    Attributes:
        way: Label of the way.
        loop: Event loop.
        recipients: Clients.
        size: Bytes of a message.
        per_turn: Messages in each turn of the event loop.
        is_compressed: Whether messages were compressed.
        cost: µs of the server's processor time for each delivery; None if it was not measured.
        ratio: What `FanoutProtocol` took in units of that, round by round.
        ring_ratio: The same of `FanoutProtocol` with io_uring.
        wire: Bytes on the wire for each delivery.
        kernel: Share of the processor time that the kernel took, for all rounds together.
        obstacle: Why it was not measured.
    """

    way: str
    loop: str
    recipients: int
    size: int
    per_turn: int
    is_compressed: bool
    cost: Figure | None = None
    ratio: Figure | None = None
    ring_ratio: Figure | None = None
    wire: float = 0
    kernel: float | None = None
    obstacle: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there are figures."""
        return self.cost is not None

    @property
    def is_ours(self) -> bool:
        """Whether it is what others are compared with, by either way to write."""
        return self.way in {FANOUT.label, RING.label}

    @property
    def target(self) -> float | None:
        """What the ratio may be at most."""
        if self.is_compressed:
            return COMPRESSED_TARGETS.get(self.way)
        return (SINGLE_TARGETS if self.per_turn == 1 else BURST_TARGETS).get(self.way)


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all stages, one after the other."""
    return [row for stage in plan.stages for row in _measure_stage(plan, stage)]


class _Samples:
    """What the rounds of one way under one load gave."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.wires: list[float] = []
        self.system = self.user = 0

    def add(self, delivery: Delivery) -> None:
        """Add a round."""
        self.costs.append(delivery.cost)
        self.wires.append(delivery.wire)
        self.system += delivery.ticks[0]
        self.user += delivery.ticks[1]

    @property
    def kernel(self) -> float | None:
        """Share of the processor time that the kernel took; None if that is too short to say."""
        ticks = self.system + self.user
        return self.system / ticks if ticks else None


def _measure_stage(plan: Plan, stage: Stage) -> list[Row]:
    obstacles = {way: _find_obstacle(stage, way) for way in stage.ways}
    ways = [way for way, obstacle in obstacles.items() if obstacle is None]
    samples = {(way, traffic): _Samples() for way in ways for traffic in stage.traffics}
    if ways:
        for _ in range(stage.starts):
            _measure_processes(plan, stage, samples)
    rows: list[Row] = []
    for traffic in stage.traffics:
        ours, ring = samples.get((FANOUT, traffic)), samples.get((RING, traffic))
        for way, obstacle in obstacles.items():
            found = samples.get((way, traffic))
            row = Row(
                way.label,
                stage.loop,
                stage.recipients,
                traffic.size,
                traffic.per_turn,
                stage.is_compressed,
                cost=Figure.of(found.costs) if found else None,
                ratio=Figure.of_ratio(ours.costs, found.costs) if ours and found else None,
                ring_ratio=Figure.of_ratio(ring.costs, found.costs) if ring and found else None,
                wire=median(found.wires) if found else 0,
                kernel=found.kernel if found else None,
                obstacle=obstacle,
            )
            rows.append(row)
    return rows


def _find_obstacle(stage: Stage, way: Way) -> str | None:
    most = file_limit()
    if stage.recipients + SPARE_FILES > most:
        return f"a process may open only {most:,} files"
    return way.obstacle()


def _measure_processes(
    plan: Plan, stage: Stage, samples: dict[tuple[Way, Traffic], _Samples]
) -> None:
    with ExitStack() as stack:
        rigs: dict[Way, Rig] = {}
        for way, _ in samples:
            if way not in rigs:
                rig = way.start(loop=stage.loop, compressed=stage.is_compressed)
                rigs[way] = stack.enter_context(rig)
        for rig in rigs.values():
            rig.connect(stage.recipients)
        for way, traffic in interleave(samples, -(-plan.rounds // stage.starts)):
            arguments = traffic._asdict() | {"recipients": stage.recipients}
            if traffic.messages > 1:
                rigs[way].deliver(**arguments | {"messages": 1})  # code and buffers get warm
            samples[way, traffic].add(rigs[way].deliver(**arguments))


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    of = _sort(rows)
    return {
        "peers": _list(of.single),
        "peers-burst": _list(of.burst),
        "peers-compression": _list(of.compressed),
        "peers-size": _cross(
            of.sizes, {row.size: f"{_show_size(row.size)}, µs" for row in of.sizes}, "size"
        ),
        "peers-recipients": _cross(
            of.recipients,
            {row.recipients: f"{row.recipients:,}, µs" for row in of.recipients},
            "recipients",
        ),
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    of = _sort(rows)
    note = "µs of server CPU per delivery; in brackets what FanoutProtocol takes of that"
    pictures = {
        "peers": ("One message in each turn of the event loop", of.single),
        "peers-burst": ("Ten messages in each turn of the event loop", of.burst),
        "peers-compression": ("With compression, 512 bytes of JSON", of.compressed),
    }
    return {
        name: draw(title, note, [Group(loop, _bars(found, loop)) for loop in _loops(found)])
        for name, (title, found) in pictures.items()
    }


class _Sorted(NamedTuple):
    """Rows by what they show; some show more than one thing."""

    single: list[Row]
    burst: list[Row]
    compressed: list[Row]
    sizes: list[Row]
    recipients: list[Row]


def _sort(rows: Sequence[Row]) -> _Sorted:
    usual = rows[0]
    plain = [row for row in rows if not row.is_compressed]
    single = [row for row in plain if row.per_turn == usual.per_turn]
    of_size = [row for row in single if row.size == usual.size]
    return _Sorted(
        single=[row for row in of_size if row.recipients == usual.recipients],
        burst=[row for row in plain if row.per_turn != usual.per_turn],
        compressed=[row for row in rows if row.is_compressed],
        sizes=[
            row for row in single if row.recipients == usual.recipients and row.loop == usual.loop
        ],
        recipients=sorted(
            (row for row in of_size if row.loop == usual.loop), key=lambda row: row.recipients
        ),
    )


def _loops(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.loop for row in rows))


def _list(rows: Sequence[Row]) -> str:
    """Return a table with a row for each way."""
    columns = {
        "event loop": [row.loop for row in rows],
        "way": [row.way for row in rows],
        "µs per delivery (quartiles)": [
            row.cost.show(1) if row.cost else f"not measured: {row.obstacle}" for row in rows
        ],
        "in the kernel": [
            "" if row.kernel is None else f"{100 * row.kernel:.0f} %" for row in rows
        ],
        "bytes on the wire": [f"{row.wire:.0f}" if row.cost else "" for row in rows],
        "FanoutProtocol takes of that (quartiles)": [_show_ratio(row, row.ratio) for row in rows],
        "with io_uring (quartiles)": [_show_ratio(row, row.ring_ratio) for row in rows],
        "target": ["" if row.target is None else f"≤ {row.target}" for row in rows],
        "": [_judge(row) for row in rows],
    }
    # An earlier result, or another machine, need not have all of them.
    filled = {head: cells for head, cells in columns.items() if any(cells)}
    return table(tuple(filled), list(zip(*filled.values(), strict=True)))


def _show_ratio(row: Row, ratio: Figure | None) -> str:
    return "" if ratio is None or row.is_ours else ratio.show(2)


def _judge(row: Row) -> str:
    """Return a word on how the ratios are to be read."""
    if row.ratio is None or row.is_ours:
        return ""
    if row.target is not None:
        if row.ratio.median <= row.target:
            return "met"
        if row.ring_ratio is not None and row.ring_ratio.median <= row.target:
            return "met with io_uring"
        return "missed"
    return "ahead of FanoutProtocol" if row.ratio.median > 1 and row.way != FLOOR.label else ""


def _cross(rows: Sequence[Row], columns: dict[int, str], name: str) -> str:
    """Return a table with a row for each way, and a column for each value of one attribute."""
    cells = {(row.way, getattr(row, name)): row for row in rows}
    return table(
        ("way", *columns.values()),
        [
            (way, *(_show(cells[way, column]) for column in columns))
            for way in dict.fromkeys(row.way for row in rows)
        ],
    )


def _show(row: Row) -> str:
    if row.cost is None:
        return f"not measured: {row.obstacle}"
    if row.ratio is None or row.is_ours:
        return f"{row.cost.median:.1f}"
    return f"{row.cost.median:.1f} (× {row.ratio.median:.2f})"


def _show_size(size: int) -> str:
    return f"{size} B" if size < KIB else f"{size // KIB} KiB"


def _bars(rows: Sequence[Row], loop: str) -> list[Bar]:
    return [
        Bar(
            row.way,
            row.cost,
            f"not measured: {row.obstacle}" if row.cost is None else _show(row),
            is_ours=row.is_ours,
        )
        for row in rows
        if row.loop == loop
    ]
