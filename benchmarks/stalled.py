"""What clients that never read do to the others: delivery latency, and the server's memory."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.process import MeasurementFailed, Rig
from benchmarks.report import table
from benchmarks.rounds import interleave
from wshub import OutboxOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("FULL", "QUICK", "Plan", "Row", "charts", "measure", "tables")

TARGET = 1.2
"""The others' p99 latency at most, in units of that with nobody stalled."""

TRANSPORT_BYTES = 64 * 1024
"""What asyncio holds for a peer before it calls it blocked, besides the message that blocks."""

PATIENCE = 60.0
"""Seconds after a round in which everything must have arrived, on a busy machine too."""

MIB = 1024 * 1024


class Case(NamedTuple):
    """A server, and whether clients stall."""

    label: str
    server: str
    is_stalled: bool
    stays: bool = False
    stops: bool = False


NONE_STALLED = Case("wshub, none stalled", "hub", is_stalled=False)
CUT_OFF = Case("wshub, 1 % stalled", "hub", is_stalled=True)
KEPT = Case("wshub told to keep them, 1 % stalled", "patient_hub", is_stalled=True, stays=True)
TUTORIAL = Case("the tutorial's loop, none stalled", "tutorial", is_stalled=False)
TUTORIAL_STALLED = Case("the tutorial's loop, 1 % stalled", "tutorial", is_stalled=True, stops=True)
REPEATED = (NONE_STALLED, CUT_OFF, KEPT, TUTORIAL)


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    clients: int = 500
    stalled: int = 5
    size: int = 16 * 1024
    rate: float = 20.0
    seconds: float = 6.0
    rounds: int = 5
    patience: float = 2.0
    """Seconds after a round in which a server that has stopped might go on."""

    @property
    def messages(self) -> int:
        """Messages of one round."""
        return round(self.rate * self.seconds)


FULL = Plan()
QUICK = Plan(clients=100, stalled=1, rate=60.0, seconds=3.0, rounds=1)


class Window(NamedTuple):
    """What one round gave."""

    p50: float
    p99: float
    delivered: float
    stopped_after: float
    growth: int
    cut_off: int


@dataclass(frozen=True)
class Row:
    """
    One case.

    Attributes:
        case: Its label.
        p50: Median delivery latency to the clients that read, in ms.
        p99: Its 99th percentile, in ms.
        ratio: The p99 in units of the one with nobody stalled, round by round.
        delivered: Share of the messages that the clients that read got during a round.
        stopped_after: Seconds from the start of the round to the last delivery.
        growth: Bytes by which the server's memory grew in a round, the largest.
        bound: Bytes that the queues of the stalled clients may hold; None where there is none.
        cut_off: How many of the stalled clients the server had cut off at the end of a round.
    """

    case: str
    p50: Figure
    p99: Figure
    ratio: Figure | None
    delivered: float
    stopped_after: float
    growth: int
    bound: int | None
    cut_off: int


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all cases in turn, several times; the tutorial with stalled clients once."""
    with ExitStack() as stack:
        rigs = {case: stack.enter_context(Rig(case.server)) for case in REPEATED}
        windows: dict[Case, list[Window]] = {case: [] for case in rigs}
        for case, rig in rigs.items():
            rig.connect(plan.clients - plan.stalled * case.is_stalled)
            _watch(
                replace(plan, seconds=min(1.0, plan.seconds)), rig, stalled=0
            )  # code and buffers get warm
            if case.stays:
                rig.stall(plan.stalled)
                windows[case].append(_watch(plan, rig, stalled=plan.stalled))  # and these full
        for case, rig in interleave(rigs.items(), plan.rounds):
            windows[case].append(_measure_round(plan, case, rig))
    with Rig(TUTORIAL_STALLED.server) as rig:
        rig.connect(plan.clients - plan.stalled)
        windows[TUTORIAL_STALLED] = [_measure_round(plan, TUTORIAL_STALLED, rig)]
    return [_summarise(plan, case, windows) for case in windows]


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    latencies = [
        (
            row.case,
            f"{100 * row.delivered:.0f} %"
            + (f", stops after {row.stopped_after:.1f} s" if row.delivered < 1 else ""),
            f"{row.p50.median:.1f}",
            f"{row.p99.median:.1f}",
            "" if row.ratio is None else row.ratio.show(2),
            "" if row.ratio is None else f"≤ {TARGET}",
        )
        for row in rows
    ]
    memory = [
        (
            row.case,
            f"{row.growth / MIB:.1f}",
            "" if row.bound is None else f"{row.bound / MIB:.1f}",
            str(row.cut_off) if row.bound else "",
        )
        for row in rows
    ]
    return {
        "stalled-latency": table(
            (
                "case",
                "the others get",
                "p50, ms",
                "p99, ms",
                "ratio (quartiles)",
                "target",
            ),
            latencies,
        ),
        "stalled-memory": table(
            ("case", "memory grew by, MiB", "bound, MiB", "stalled clients cut off"), memory
        ),
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    bars = [
        Bar(
            row.case,
            row.p99 if row.delivered == 1 else None,
            f"{row.p99.median:.1f} ms"
            if row.delivered == 1
            else f"stops after {row.stopped_after:.1f} s",
            is_ours=row.case.startswith("wshub"),
        )
        for row in rows
    ]
    return {
        "stalled": draw(
            "1 % of the clients never read",
            "p99 delivery latency of the others, ms",
            [Group("", bars)],
        )
    }


def _measure_round(plan: Plan, case: Case, rig: Rig) -> Window:
    if not case.is_stalled or case.stays:
        return _watch(plan, rig, stalled=plan.stalled * case.is_stalled)
    rig.stall(plan.stalled)
    window = _watch(plan, rig, stalled=plan.stalled, stops=case.stops)
    if not case.stops:
        rig.load.ask("release")
        rig.await_count(rig.count)
    return window


def _watch(plan: Plan, rig: Rig, *, stalled: int, stops: bool = False) -> Window:
    """Send at a steady rate and look at the memory meanwhile; `stops`: not all may arrive."""
    patience = plan.patience if stops else PATIENCE
    expected = plan.messages * rig.count
    before = peak = rig.server.resident_memory
    start = time.monotonic()
    rig.load.tell("wait", frames=expected, timeout=plan.seconds + patience)
    rig.server.tell("pace", messages=plan.messages, size=plan.size, rate=plan.rate)
    while not rig.load.has_answered():
        time.sleep(0.1)
        peak = max(peak, rig.server.resident_memory)
    arrived = rig.load.answer()["result"]
    if stops:
        left = stalled  # the server does not answer any more
    elif arrived["frames"] == expected:
        rig.server.answer()
        left = rig.server.ask("count") - rig.count
    else:
        raise MeasurementFailed(f"{arrived['frames']} of {expected} messages arrived")
    latency = rig.load.ask("latency")
    return Window(
        p50=latency["p50"],
        p99=latency["p99"],
        delivered=arrived["frames"] / expected,
        stopped_after=arrived["last_ns"] / 1e9 - start,
        growth=peak - before,
        cut_off=stalled - left,
    )


def _summarise(plan: Plan, case: Case, windows: dict[Case, list[Window]]) -> Row:
    found = windows[case][-plan.rounds :]
    reference = windows[NONE_STALLED]
    bound = OutboxOptions().max_bytes + TRANSPORT_BYTES + plan.size
    p99 = [window.p99 for window in found]
    return Row(
        case=case.label,
        p50=Figure.of(window.p50 for window in found),
        p99=Figure.of(p99),
        ratio=(
            Figure.of_ratio(p99, [window.p99 for window in reference])
            if case in {CUT_OFF, KEPT}
            else None
        ),
        delivered=min(window.delivered for window in found),
        stopped_after=min(window.stopped_after for window in found),
        growth=max(window.growth for window in windows[case]),
        bound=plan.stalled * bound if case in {CUT_OFF, KEPT} else None,
        cut_off=min(window.cut_off for window in found),
    )
