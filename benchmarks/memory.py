"""What an idle connection, and being in a room, costs in memory."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.process import Growth, Rig
from benchmarks.report import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

PLAIN, READER, HUB = "plain", "reader", "hub"
SERVERS = (PLAIN, READER, HUB)
ROOMS = 10
MEMBERS = 100
MOST_FILES = 8
WITHOUT = "a connection without wshub"

CONNECTION_TARGET = 3 * 1024
MEMBERSHIP_TARGET = 200


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    connections: int = 5_000
    traced: int = 1_000
    rounds: int = 2


FULL = Plan()
QUICK = Plan(connections=500, traced=100, rounds=1)


@dataclass(frozen=True)
class Row:
    """
    Bytes of one thing.

    Attributes:
        item: What takes them.
        resident: Bytes by the size of the process.
        traced: Bytes by what Python allocates; None where that was not asked for.
        target: The most that they may be, or None.
        is_file: Whether the item is a file that allocates a part of the rows above.
    """

    item: str
    resident: Figure | None
    traced: float | None
    target: int | None = None
    is_file: bool = False


class _Trace(NamedTuple):
    """Bytes for each connection, by file and in total, and for each membership."""

    files: dict[str, float]
    total: float
    membership: float = 0
    own_membership: float = 0


class _Samples:
    """Bytes for each connection, and each membership, of several rounds."""

    def __init__(self) -> None:
        self.connection: dict[str, list[float]] = {server: [] for server in SERVERS}
        self.membership: list[float] = []
        self.own_membership: list[float] = []


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure the size of processes, and what Python holds in others that trace it."""
    samples = _Samples()
    for _ in range(plan.rounds):
        with _start_servers() as rigs:
            for server, rig in rigs.items():
                _measure_server(plan, server, rig, samples)
    with _start_servers(trace=True) as rigs:
        traces = {server: _trace(plan, server, rig) for server, rig in rigs.items()}
    totals = {server: trace.total for server, trace in traces.items()}
    connection = samples.connection
    above = {
        "the task that reads": (READER, PLAIN, None),
        "the rest of wshub": (HUB, READER, None),
        "wshub as a whole": (HUB, PLAIN, CONNECTION_TARGET),
    }
    return [
        Row(WITHOUT, Figure.of(connection[PLAIN]), totals[PLAIN]),
        *(
            Row(
                item,
                Figure.of(
                    one - other
                    for one, other in zip(connection[server], connection[base], strict=True)
                ),
                totals[server] - totals[base],
                target,
            )
            for item, (server, base, target) in above.items()
        ),
        Row(
            "being in a room of 100",
            Figure.of(samples.membership),
            traces[HUB].membership,
            MEMBERSHIP_TARGET,
        ),
        Row(
            "being alone in a room, with the room",
            Figure.of(samples.own_membership),
            traces[HUB].own_membership,
        ),
        *_by_file(traces[PLAIN].files, traces[HUB].files),
    ]


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    return {
        "memory": table(
            ("what", "bytes", "by Python's own account", "target"),
            [
                (
                    row.item,
                    "" if row.resident is None else f"{row.resident.median:,.0f}",
                    "" if row.traced is None else f"{row.traced:,.0f}",
                    "" if row.target is None else f"≤ {row.target:,}",
                )
                for row in rows
                if not row.is_file
            ],
        ),
        "memory-files": table(
            ("allocated in", "bytes"),
            [(f"`{row.item}`", f"{row.traced:,.0f}") for row in rows if row.is_file],
        ),
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    bars = [
        Bar(
            row.item,
            row.resident,
            f"{row.resident.median:,.0f}",
            is_ours=row.item != WITHOUT,
        )
        for row in rows
        if row.resident is not None
    ]
    return {"memory": draw("Memory", "bytes, by the size of the process", [Group("", bars)])}


@contextmanager
def _start_servers(*, trace: bool = False) -> Iterator[dict[str, Rig]]:
    """Run a process for each server; those that are not asked anything use no time."""
    with ExitStack() as stack:
        yield {server: stack.enter_context(Rig(server, trace=trace)) for server in SERVERS}


def _measure_server(plan: Plan, server: str, rig: Rig, samples: _Samples) -> None:
    count = plan.connections
    rig.connect(20)  # imports and caches
    rig.close()
    growth = Growth(rig)
    rig.connect(count)
    samples.connection[server].append(growth.measure() / count)
    if server == HUB:
        for members, found in (
            (MEMBERS, samples.membership),
            (1, samples.own_membership),
        ):
            arguments = {"rooms": ROOMS, "members": members}
            rig.server.ask("join", **arguments)
            found.append(growth.measure() / (count * ROOMS))
            rig.server.ask("leave", **arguments)
            growth.measure()


def _trace(plan: Plan, server: str, rig: Rig) -> _Trace:
    """Have a server account for what Python allocates for each connection."""
    rig.connect(20)
    rig.close()
    before: dict[str, int] = rig.server.ask("trace")
    rig.connect(plan.traced)
    after: dict[str, int] = rig.server.ask("trace")
    memberships: list[float] = []
    for members in (MEMBERS, 1) if server == HUB else ():
        arguments = {"rooms": ROOMS, "members": members}
        outside = sum(rig.server.ask("trace").values())
        rig.server.ask("join", **arguments)
        inside = sum(rig.server.ask("trace").values())
        memberships.append((inside - outside) / (plan.traced * ROOMS))
        rig.server.ask("leave", **arguments)
    files = {name: (held - before.get(name, 0)) / plan.traced for name, held in after.items()}
    return _Trace(files, sum(files.values()), *memberships)


def _by_file(plain: dict[str, float], hub: dict[str, float]) -> list[Row]:
    """Return what wshub's server holds for each connection beyond the plain one, by file."""
    differences = {name: hub.get(name, 0) - plain.get(name, 0) for name in {*plain, *hub}}
    largest = sorted(differences, key=lambda name: (-abs(differences[name]), name))[:MOST_FILES]
    return [Row(name, None, differences[name], is_file=True) for name in largest]
