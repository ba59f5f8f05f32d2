"""Whether what one connection costs depends on how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.process import Rig
from benchmarks.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

SERVERS = {"tutorial": "the tutorial", "hub": "wshub"}
OPERATIONS = (
    "connect",
    "join a room of 100",
    "join a room of one's own",
    "deliver to everyone",
    "deliver to a room of 100",
    "leave a room of 100",
    "leave a room of one's own",
    "disconnect",
)
MEMBERS = 100
"""Members of a room that is shared."""

ROOMS = 10
"""Rooms that each connection joins."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    servers: Sequence[str] = tuple(SERVERS)
    small: int = 1_000
    large: int = 10_000
    deliveries: int = 20_000
    rounds: int = 3


FULL = Plan()
QUICK = Plan(small=100, large=500, deliveries=2_000, rounds=1)


@dataclass(frozen=True)
class Row:
    """
    One operation of one server.

    Attributes:
        operation: What is done.
        server: Label of the server.
        few: A number of connections.
        many: A larger one.
        small: µs of the server's processor time for one operation, with few connections.
        large: The same with many.
        ratio: `large` in units of `small`, round by round.
    """

    operation: str
    server: str
    few: int
    many: int
    small: Figure
    large: Figure
    ratio: Figure


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all operations of all servers with few and with many connections."""
    small: dict[tuple[str, str], list[float]] = {}
    large: dict[tuple[str, str], list[float]] = {}
    for _ in range(plan.rounds):
        for server in plan.servers:
            # Before and after: what drifts meanwhile, as the clock of the processor, cancels out.
            before = _measure_server(plan, server, plan.small)
            for operation, cost in _measure_server(plan, server, plan.large).items():
                large.setdefault((operation, server), []).append(cost)
            after = _measure_server(plan, server, plan.small)
            for operation in before:
                mean = (before[operation] + after[operation]) / 2
                small.setdefault((operation, server), []).append(mean)
    return [
        Row(
            operation,
            SERVERS[server],
            plan.small,
            plan.large,
            Figure.of(small[operation, server]),
            Figure.of(large[operation, server]),
            Figure.of_ratio(large[operation, server], small[operation, server]),
        )
        for operation in OPERATIONS
        for server in plan.servers
        if (operation, server) in small
    ]


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    return {
        "scale": table(
            (
                "operation",
                "server",
                f"µs with {rows[0].few:,}",
                f"µs with {rows[0].many:,}",
                "ratio",
            ),
            [
                (
                    row.operation,
                    row.server,
                    _show(row.small.median),
                    _show(row.large.median),
                    f"{row.ratio.median:.2f}",
                )
                for row in rows
            ],
        )
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    operations = dict.fromkeys(row.operation for row in rows)
    groups = [
        Group(
            operation,
            [
                Bar(
                    row.server,
                    row.ratio,
                    f"{row.ratio.median:.2f}",
                    is_ours=row.server == SERVERS["hub"],
                )
                for row in rows
                if row.operation == operation
            ],
        )
        for operation in operations
    ]
    return {
        "scale": draw(
            f"From {rows[0].few:,} to {rows[0].many:,} connections",
            "CPU time of one operation with many connections, as a multiple of that with few",
            groups,
            mark=1.0,
        )
    }


def _show(microseconds: float) -> str:
    return f"{microseconds:.3g}" if microseconds < 1000 else f"{microseconds:,.0f}"  # noqa: PLR2004


def _measure_server(plan: Plan, server: str, count: int) -> dict[str, float]:
    """Return µs for each operation, in a fresh process."""
    with Rig(server) as rig:
        rig.connect(min(count, 20))  # imports and caches
        rig.close()
        costs: dict[str, float] = {}
        before = rig.server.cpu_ns
        rig.connect(count)
        costs["connect"] = (rig.server.cpu_ns - before) / count / 1000
        costs["deliver to everyone"] = _broadcast(plan, rig, count, [None])
        if server == "hub":
            costs |= _measure_rooms(plan, rig, count)
        before = rig.server.cpu_ns
        rig.close()
        costs["disconnect"] = (rig.server.cpu_ns - before) / count / 1000
    return costs


def _measure_rooms(plan: Plan, rig: Rig, count: int) -> dict[str, float]:
    costs: dict[str, float] = {}
    members = min(MEMBERS, count)
    for label, size in (("a room of 100", members), ("a room of one's own", 1)):
        arguments = {"rooms": ROOMS, "members": size}
        costs[f"join {label}"] = rig.server.ask("join", **arguments) / (count * ROOMS) / 1000
        if size == members:
            names = [f"room-{members}-{index}-0" for index in range(count // members)]
            costs[f"deliver to {label}"] = _broadcast(plan, rig, members, names)
        costs[f"leave {label}"] = rig.server.ask("leave", **arguments) / (count * ROOMS) / 1000
    rig.server.ask("forget")
    return costs


def _broadcast(plan: Plan, rig: Rig, recipients: int, rooms: Sequence[str | None]) -> float:
    messages = max(2, plan.deliveries // recipients)
    return rig.broadcast(messages=messages, recipients=recipients, size=64, rooms=rooms)
