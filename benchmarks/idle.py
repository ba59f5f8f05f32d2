"""What an idle connection takes of a server's memory, beside other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.process import Growth
from benchmarks.report import table
from benchmarks.rounds import interleave
from benchmarks.ways import FANOUT, LITESTAR, SOCKETIO, STOCK, WEBSOCKETS, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.process import Rig

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

ENDPOINT = Way("a FastAPI endpoint, stock uvicorn", "plain")
WAYS = (ENDPOINT, WEBSOCKETS._replace(label="websockets"), LITESTAR, SOCKETIO, STOCK, FANOUT)

CLIENTS = {False: "clients offer no compression", True: "clients offer compression"}


@dataclass(frozen=True)
class Plan:
    """How much to measure. `warmup` connections come and go before: imports and caches."""

    connections: int = 5_000
    warmup: int = 20
    rounds: int = 2


FULL = Plan()
QUICK = Plan(connections=500, rounds=1)


@dataclass(frozen=True)
class Row:
    """
    One way.

    Attributes:
        way: Its label.
        is_compressed: Whether the clients offered permessage-deflate, as browsers do.
        size: Bytes of memory that a connection takes, by the size of the process.
        above: The same less what the plain endpoint takes, round by round.
        obstacle: Why it was not measured.
    """

    way: str
    is_compressed: bool
    size: Figure | None = None
    above: Figure | None = None
    obstacle: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there are figures."""
        return self.size is not None


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all ways in turn, several times, each time in fresh processes."""
    return [row for is_compressed in CLIENTS for row in _measure_ways(plan, is_compressed)]


def _measure_ways(plan: Plan, is_compressed: bool) -> list[Row]:  # noqa: FBT001
    obstacles = {way: way.obstacle() for way in WAYS}
    ways = [way for way, obstacle in obstacles.items() if obstacle is None]
    sizes: dict[Way, list[float]] = {way: [] for way in ways}
    for way in interleave(ways, plan.rounds):
        with way.start(compressed=is_compressed) as rig:
            sizes[way].append(_measure_connection(plan, rig))
    return [
        Row(way.label, is_compressed, obstacle=obstacle)
        if obstacle is not None
        else Row(
            way.label,
            is_compressed,
            Figure.of(sizes[way]),
            Figure.of(one - base for one, base in zip(sizes[way], sizes[ENDPOINT], strict=True)),
        )
        for way, obstacle in obstacles.items()
    ]


def _measure_connection(plan: Plan, rig: Rig) -> float:
    rig.connect(plan.warmup)
    rig.close()
    growth = Growth(rig)
    rig.connect(plan.connections)
    return growth.measure() / plan.connections


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    return {
        "idle": table(
            ("clients", "way", "bytes", "above the plain endpoint"),
            [
                (
                    CLIENTS[row.is_compressed],
                    row.way,
                    _show(row),
                    f"{row.above.median:,.0f}"
                    if row.above is not None and row.way != ENDPOINT.label
                    else "",
                )
                for row in rows
            ],
        )
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    groups = [
        Group(
            heading,
            [
                Bar(row.way, row.size, _show(row), is_ours=row.way == FANOUT.label)
                for row in rows
                if row.is_compressed == is_compressed
            ],
        )
        for is_compressed, heading in CLIENTS.items()
    ]
    return {"idle": draw("An idle connection", "bytes, by the size of the process", groups)}


def _show(row: Row) -> str:
    return f"not measured: {row.obstacle}" if row.size is None else f"{row.size.median:,.0f}"
