"""What a flood of strangers' handshakes does to those who are connected: delivery latency."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.machine import cores
from benchmarks.process import MeasurementFailed, Process, Rig, run_module
from benchmarks.report import table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

TARGET = 1.5
"""The connected clients' p99 latency at most, in units of that without a flood."""

PATIENCE = 60.0
"""Seconds after a round in which everything must have arrived, on a busy machine too."""

SERVERS = {
    "guarded_hub": "`limit_connections()`",
    "half_guarded_hub": "`HandshakeLimit`",
    "unguarded_hub": "no limit",
}


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    clients: int = 100
    size: int = 64
    rate: float = 50.0
    flood: float = 2000.0
    """Handshakes a second."""
    seconds: float = 3.0
    rounds: int = 11


FULL = Plan()
QUICK = Plan(seconds=1.0, rounds=1)


class Window(NamedTuple):
    """What one round gave."""

    p50: float
    p99: float
    cpu: float
    refused: float


@dataclass(frozen=True)
class Row:
    """
    One case.

    Attributes:
        case: Its label.
        refused: Handshakes a second that were refused, or whose connections were dropped.
        p50: Median delivery latency to the clients that are connected, in ms.
        p99: Its 99th percentile, in ms.
        ratio: The p99 in units of the one without a flood, round by round; None for that.
        cpu: Share of a processor that the server took.
    """

    case: str
    refused: float
    p50: Figure
    p99: Figure
    ratio: Figure | None
    cpu: Figure


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure each server in turn without and with a flood, several times."""
    windows: dict[tuple[str, bool], list[Window]] = {}
    with ExitStack() as stack:
        flood = stack.enter_context(Process(*run_module("benchmarks.flood"), core=cores()[1]))
        rigs = {server: stack.enter_context(Rig(server)) for server in SERVERS}
        for rig in rigs.values():
            rig.connect(plan.clients)
            _measure_round(plan, rig, flood)  # code gets warm, and the burst is used up
        for _ in range(plan.rounds):
            for server, rig in rigs.items():
                for is_flooded in (False, True):
                    window = _measure_round(plan, rig, flood if is_flooded else None)
                    windows.setdefault((server, is_flooded), []).append(window)
    return [
        _summarise(server, windows[server, False], windows[server, True] if is_flooded else None)
        for server in SERVERS
        for is_flooded in (False, True)
    ]


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    head = (
        "case",
        "refused, 1/s",
        "p50, ms",
        "p99, ms",
        "ratio (quartiles)",
        "target",
        "server's CPU",
    )
    body = [
        (
            row.case,
            f"{row.refused:.0f}",
            f"{row.p50.median:.1f}",
            f"{row.p99.median:.1f}",
            "" if row.ratio is None else row.ratio.show(2),
            "" if row.ratio is None else f"≤ {TARGET}",
            f"{100 * row.cpu.median:.0f} %",
        )
        for row in rows
    ]
    return {"handshakes": table(head, body)}


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    bars = [Bar(row.case, row.p99, f"{row.p99.median:.1f} ms", is_ours=True) for row in rows]
    title = "A flood of handshakes"
    return {"handshakes": draw(title, "p99 delivery latency, ms", [Group("", bars)])}


def _measure_round(plan: Plan, rig: Rig, flood: Process | None) -> Window:
    messages = round(plan.rate * plan.seconds)
    expected = messages * plan.clients
    rig.load.ask("latency")
    before, start = rig.server.cpu_ns, time.monotonic()
    if flood is not None:
        port = rig.port
        flood.tell("flood", port=port, rate=plan.flood, seconds=plan.seconds, path="/private")
    rig.load.tell("wait", frames=expected, timeout=plan.seconds + PATIENCE)
    rig.server.tell("pace", messages=messages, size=plan.size, rate=plan.rate)
    rig.server.answer(plan.seconds + PATIENCE)
    frames = rig.load.answer(plan.seconds + 2 * PATIENCE)["result"]["frames"]
    if frames != expected:
        raise MeasurementFailed(f"{frames} of {expected} messages arrived")
    cpu = (rig.server.cpu_ns - before) / 1e9 / (time.monotonic() - start)
    latency = rig.load.ask("latency")
    refused = 0.0
    if flood is not None:
        refused = flood.answer(plan.seconds + PATIENCE)["result"]["refused"] / plan.seconds
    return Window(latency["p50"], latency["p99"], cpu, refused)


def _summarise(server: str, quiet: list[Window], flooded: list[Window] | None) -> Row:
    windows = quiet if flooded is None else flooded
    what = "no flood" if flooded is None else "a flood"
    p99 = [window.p99 for window in windows]
    return Row(
        case=f"{SERVERS[server]}, {what}",
        refused=sum(window.refused for window in windows) / len(windows),
        p50=Figure.of(window.p50 for window in windows),
        p99=Figure.of(p99),
        ratio=None if flooded is None else Figure.of_ratio(p99, [one.p99 for one in quiet]),
        cpu=Figure.of(window.cpu for window in windows),
    )
