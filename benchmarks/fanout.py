"""What it costs to send one message to many: processor time of the server for each delivery."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.process import Rig
from benchmarks.report import table
from benchmarks.rounds import interleave
from benchmarks.ways import TUTORIAL, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

TARGET = 1.15
"""What a delivery may cost at most, in units of the tutorial's."""


class Setup(NamedTuple):
    """How a server is run."""

    ws: str
    loop: str


REFERENCE = TUTORIAL
WAYS = (
    REFERENCE,
    Way("the same, a second time", "tutorial"),
    Way("wshub, to everyone", "hub"),
    Way("wshub, to a room", "hub", "/ws/everyone", "everyone"),
)
CONTROL = WAYS[1]


@dataclass(frozen=True)
class Plan:
    """
    How much to measure.

    Rounds are short, so that what else the machine does meets all ways alike, and the processes
    are started anew several times, as each has its own luck with where its memory lies.
    """

    setups: Sequence[Setup] = tuple(
        Setup(ws, loop) for ws in ("websockets-sansio", "wsproto") for loop in ("asyncio", "uvloop")
    )
    recipients: int = 500
    size: int = 64
    warmup: int = 1
    messages: int = 5
    rounds: int = 40
    starts: int = 3


FULL = Plan()
QUICK = Plan(setups=(Setup("websockets-sansio", "asyncio"),), rounds=10, starts=1)


@dataclass(frozen=True)
class Row:
    """
    One way under one setup.

    Attributes:
        ws: uvicorn's implementation of WebSockets.
        loop: Event loop.
        way: Label of the way.
        cost: µs of the server's processor time for each delivery.
        ratio: The same in units of the tutorial's, round by round.
    """

    ws: str
    loop: str
    way: str
    cost: Figure
    ratio: Figure


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all ways under all setups."""
    return [row for setup in plan.setups for row in _measure_setup(plan, setup)]


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    head = ("uvicorn with", "way", "µs per delivery (quartiles)", "ratio (quartiles)", "target")
    return {
        "fanout": table(
            head,
            [
                (
                    f"`{row.ws}`, {row.loop}",
                    row.way,
                    row.cost.show(1),
                    row.ratio.show(2) if row.way != REFERENCE.label else "1",
                    f"≤ {TARGET}" if row.way.startswith("wshub") else "",
                )
                for row in rows
            ],
        )
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    setups = dict.fromkeys((row.ws, row.loop) for row in rows)
    groups = [
        Group(
            f"{ws}, {loop}",
            [
                Bar(
                    row.way,
                    row.cost,
                    f"{row.cost.median:.1f} (× {row.ratio.median:.2f})",
                    is_ours=row.way.startswith("wshub"),
                )
                for row in rows
                if (row.ws, row.loop) == (ws, loop) and row.way != CONTROL.label
            ],
        )
        for ws, loop in setups
    ]
    return {
        "fanout": draw(
            "One message to many",
            "µs of server CPU per delivery; in brackets as a multiple of the tutorial's",
            groups,
        )
    }


def _measure_setup(plan: Plan, setup: Setup) -> list[Row]:
    costs: dict[Way, list[float]] = {way: [] for way in WAYS}
    for _ in range(plan.starts):
        _measure_processes(plan, setup, costs)
    return [
        Row(
            setup.ws,
            setup.loop,
            way.label,
            Figure.of(costs[way]),
            Figure.of_ratio(costs[way], costs[REFERENCE]),
        )
        for way in WAYS
    ]


def _measure_processes(plan: Plan, setup: Setup, costs: dict[Way, list[float]]) -> None:
    with ExitStack() as stack:
        rigs = [
            stack.enter_context(Rig(way.server, ws=setup.ws, loop=setup.loop, path=way.path))
            for way in WAYS
        ]
        for rig in rigs:
            rig.connect(plan.recipients)
        for way, rig in interleave(zip(WAYS, rigs, strict=True), plan.rounds):
            _send(plan, way, rig, plan.warmup)
            costs[way].append(_send(plan, way, rig, plan.messages))


def _send(plan: Plan, way: Way, rig: Rig, messages: int) -> float:
    return rig.broadcast(
        messages=messages, recipients=plan.recipients, size=plan.size, rooms=[way.room]
    )
