"""People in one room, all of whom speak: what it costs, and how long it takes to reach everyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.report import table
from benchmarks.rounds import interleave
from benchmarks.ways import FANOUT, LITESTAR, SOCKETIO, STOCK, WEBSOCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.ways import Way

__all__ = ("FULL", "QUICK", "Plan", "Row", "Setup", "charts", "measure", "tables")

WAYS = (WEBSOCKETS, LITESTAR, SOCKETIO, STOCK, FANOUT)
PATH = "/chat"

COMPLETE = 0.999
"""Share of the deliveries from which on a server is said to keep up."""


class Setup(NamedTuple):
    """How many people are in the room, and the server's event loop."""

    people: int
    loop: str


@dataclass(frozen=True)
class Plan:
    """
    How much to measure.

    Each round has fresh processes: a server that does not keep up has work left at the end of one.
    """

    setups: Sequence[Setup] = (Setup(200, "asyncio"), Setup(200, "uvloop"), Setup(50, "asyncio"))
    period: float = 1.0
    """Seconds after which everyone speaks again."""

    size: int = 64
    warmup: float = 1.0
    seconds: float = 6.0
    patience: float = 1.0
    """Seconds that the last messages of a round may take."""

    rounds: int = 3


FULL = Plan()
QUICK = Plan(setups=(Setup(50, "asyncio"),), seconds=2.0, rounds=1)


@dataclass(frozen=True)
class Row:
    """
    One way with so many people.

    Attributes:
        way: Label of the way.
        loop: Event loop.
        people: How many are in the room.
        share: Share of a processor that the server used.
        p50: Median of the delivery latency, in ms; of what was delivered.
        p99: Its 99th percentile.
        delivered: Share of the deliveries that came in time, the least of all rounds.
        sending_lag: ms by which the load generator was late in sending, 99th percentile, the worst.
        reading_lag: The same in reading what was there.
        load: Share of a processor that the load generator used, the largest.
        obstacle: Why it was not measured.
    """

    way: str
    loop: str
    people: int
    share: Figure | None = None
    p50: Figure | None = None
    p99: Figure | None = None
    delivered: float = 0
    sending_lag: float = 0
    reading_lag: float = 0
    load: float = 0
    obstacle: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there are figures."""
        return self.share is not None

    @property
    def keeps_up(self) -> bool:
        """Whether all was delivered in time."""
        return self.delivered >= COMPLETE


class _Round(NamedTuple):
    """What one round gave; see `Row`."""

    share: float
    p50: float
    p99: float
    delivered: float
    sending_lag: float
    reading_lag: float
    load: float


def measure(plan: Plan = FULL) -> list[Row]:
    """Hold all chats in turn, several times."""
    return [row for setup in plan.setups for row in _measure_setup(plan, *setup)]


def _measure_setup(plan: Plan, people: int, loop: str) -> list[Row]:
    obstacles = {way: way.obstacle() for way in WAYS}
    ways = [way for way, obstacle in obstacles.items() if obstacle is None]
    found: dict[Way, list[_Round]] = {}
    for way in interleave(ways, plan.rounds):
        found.setdefault(way, []).append(_measure_round(plan, way, people, loop))
    return [
        _summarise(way, loop, people, found[way])
        if obstacle is None
        else Row(way.label, loop, people, obstacle=obstacle)
        for way, obstacle in obstacles.items()
    ]


def _measure_round(plan: Plan, way: Way, people: int, loop: str) -> _Round:
    path = None if way is SOCKETIO else PATH
    with way.start(loop=loop, path=path) as rig:
        rig.connect(people)
        talk = {"period": plan.period, "size": plan.size, "patience": plan.patience}
        warmed = rig.load.ask("chat", seconds=plan.warmup, **talk)
        if warmed["frames"] < warmed["expected"]:  # it does not keep up: nothing may be left over
            rig.load.ask("wait", frames=warmed["expected"] - warmed["frames"])
        rig.load.ask("latency")
        before = rig.server.cpu_ns
        result = rig.load.ask("chat", seconds=plan.seconds, **talk)
        used = rig.server.cpu_ns - before
        latency = rig.load.ask("latency")
    return _Round(
        share=used / 1e9 / result["seconds"],
        p50=latency["p50"],
        p99=latency["p99"],
        delivered=result["frames"] / result["expected"],
        sending_lag=result["sending_lag"],
        reading_lag=result["reading_lag"],
        load=result["share"],
    )


def _summarise(way: Way, loop: str, people: int, rounds: Sequence[_Round]) -> Row:
    return Row(
        way.label,
        loop,
        people,
        share=Figure.of(one.share for one in rounds),
        p50=Figure.of(one.p50 for one in rounds),
        p99=Figure.of(one.p99 for one in rounds),
        delivered=min(one.delivered for one in rounds),
        sending_lag=max(one.sending_lag for one in rounds),
        reading_lag=max(one.reading_lag for one in rounds),
        load=max(one.load for one in rounds),
    )


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    return {
        "chat": table(
            (
                "people",
                "event loop",
                "way",
                "CPU of the server",
                "delivered in time",
                "p50, ms",
                "p99, ms",
                "load generator late in sending, ms",
                "in reading, ms",
                "its CPU",
            ),
            [(str(row.people), row.loop, row.way, *_show(row)) for row in rows],
        )
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    title = "A chat in which everyone speaks once a second"
    return {
        "chat-cpu": draw(title, "share of a processor that the server uses", _groups(rows, _share)),
        "chat-latency": draw(title, "p99 delivery latency, ms", _groups(rows, _latency)),
    }


def _show(row: Row) -> tuple[str, ...]:
    if row.share is None or row.p50 is None or row.p99 is None:
        return (f"not measured: {row.obstacle}", *[""] * 6)
    return (
        f"{100 * row.share.median:.0f} %",
        "all" if row.keeps_up else f"{100 * row.delivered:.0f} %",
        f"{row.p50.median:.1f}" if row.keeps_up else "grows",
        f"{row.p99.median:.1f}" if row.keeps_up else "grows",
        f"{row.sending_lag:.1f}",
        f"{row.reading_lag:.1f}",
        f"{100 * row.load:.0f} %",
    )


def _groups(
    rows: Sequence[Row], describe: Callable[[Row], tuple[Figure | None, str]]
) -> list[Group]:
    setups = dict.fromkeys((row.people, row.loop) for row in rows)
    return [
        Group(
            f"{people} people, {loop}",
            [
                Bar(row.way, *describe(row), is_ours=row.way == FANOUT.label)
                for row in rows
                if (row.people, row.loop) == (people, loop)
            ],
        )
        for people, loop in setups
    ]


def _share(row: Row) -> tuple[Figure | None, str]:
    if row.share is None:
        return None, f"not measured: {row.obstacle}"
    return row.share, f"{100 * row.share.median:.0f} %" + ("" if row.keeps_up else ", too slow")


def _latency(row: Row) -> tuple[Figure | None, str]:
    if row.p99 is None:
        return None, f"not measured: {row.obstacle}"
    return (row.p99, f"{row.p99.median:.1f}") if row.keeps_up else (None, "does not keep up")
