"""From a client of one worker to a client of another: latency, rate, messages on the broker."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.chart import Bar, Group, draw
from benchmarks.figures import Figure
from benchmarks.pair import Pair
from benchmarks.report import table
from benchmarks.rounds import interleave
from benchmarks.ways import Way
from tests.brokers.kinds import KINDS
from tests.brokers.redis_server import RedisAdmin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.pair import Talked
    from tests.brokers.kinds import Broker

__all__ = ("FULL", "QUICK", "Contestant", "Plan", "Row", "Setup", "charts", "measure", "tables")

REDIS = "redis"
SLOWEST = 1
"""Messages a second that nothing is slower than."""

LATENCY_TARGET, RATE_TARGET = 1.0, 2.0
"""The p99 and the rate of wshub on Redis, in units of the best of the others on Redis."""


class Contestant(NamedTuple):
    """A way to have several workers, and the kind of broker between them."""

    way: Way
    broker: str = REDIS

    @property
    def is_target(self) -> bool:
        """Whether the targets are about it."""
        return self.way.is_ours and self.broker == REDIS


class Setup(NamedTuple):
    """
    Rooms, their members, and a modest traffic for them.

    Attributes:
        rooms: How many there are.
        members: Clients of either worker in each of them.
        steady: Messages a second at which latency is measured.
    """

    rooms: int
    members: int
    steady: float

    @property
    def label(self) -> str:
        """Its name for people."""
        rooms = "one room" if self.rooms == 1 else f"{self.rooms} rooms"
        return f"{rooms} of {2 * self.members}"


def _ours(label: str, ws: str = "websockets-sansio") -> Way:
    return Way(f"wshub, {label}", "hub", path="/chat/{room}", ws=ws)


def _other(label: str, module: str) -> Way:
    return Way(label, module, path="/chat/{room}", requires=module)


CONTESTANTS = (
    Contestant(_ours("Redis, stock uvicorn")),
    Contestant(_ours("Redis, FanoutProtocol", "wshub.uvicorn:FanoutProtocol")),
    Contestant(_other("broadcaster", "broadcaster")),
    Contestant(_other("Litestar channels", "litestar")),
    Contestant(_other("channels_redis (pub/sub)", "channels")),
    Contestant(
        Way(
            "python-socketio",
            "socketio",
            path="/socket.io/?EIO=4&transport=websocket&room={room}",
            dialect="socketio",
            requires="socketio",
        )
    ),
    Contestant(_ours("PostgreSQL, stock uvicorn"), "postgres"),
    Contestant(_ours("NATS, stock uvicorn"), "nats"),
)


@dataclass(frozen=True)
class Plan:
    """
    How much to measure.

    Each round has fresh workers, as one that does not keep up has work left at its end; the
    brokers stay.
    """

    # broadcaster 0.3.1 begins to listen at the second channel that is subscribed to: two rooms.
    setups: Sequence[Setup] = (Setup(20, 1, 200), Setup(2, 20, 50))
    contestants: Sequence[Contestant] = CONTESTANTS
    size: int = 64
    warmup: float = 1.0
    seconds: float = 5.0
    patience: float = 2.0
    """Seconds that the last messages of these may take."""

    trial: float = 1.5
    """Seconds for which each rate is tried."""

    lag: float = 0.1
    """Seconds that the last messages of a trial may take: more is a lag that grows."""

    steps: int = 4
    """How often the interval of a rate, which begins as a factor of two, is halved."""

    rounds: int = 3


FULL = Plan()
QUICK = Plan(setups=(Setup(20, 1, 200),), seconds=1.0, trial=0.5, steps=2, rounds=1)


class _Round(NamedTuple):
    steady: Talked
    published: float
    rate: float
    load: float


@dataclass(frozen=True)
class Row:
    """
    One contestant in one setup.

    Attributes:
        setup: Label of the rooms and their members.
        way: Label of the contestant.
        is_ours: Whether it is wshub.
        is_target: Whether the targets are about it.
        p50: Median latency, in ms, of deliveries by the other worker at the steady rate.
        p99: Its 99th percentile.
        latency_ratio: The p99 in units of the smallest of the others, round by round.
        rate: Highest rate that was kept up, messages a second.
        rate_ratio: The same in units of the highest of the others, round by round.
        cost: µs of processor time of both workers for a message at the steady rate.
        published: Messages that the broker was given for each of a client.
        delivered: Share of the deliveries that came at the steady rate, the least of all rounds.
        sending_lag: ms by which the load generator was late then, 99th percentile, the worst.
        load: Share of a processor that the load generator used at the highest rate, the largest.
        obstacle: Why it was not measured.
    """

    setup: str
    way: str
    is_ours: bool
    is_target: bool
    p50: Figure | None = None
    p99: Figure | None = None
    latency_ratio: Figure | None = None
    rate: Figure | None = None
    rate_ratio: Figure | None = None
    cost: Figure | None = None
    published: float = 0
    delivered: float = 0
    sending_lag: float = 0
    load: float = 0
    obstacle: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there are figures."""
        return self.rate is not None


def measure(plan: Plan = FULL) -> list[Row]:
    """Measure all contestants in turn, several times, in each setup."""
    with ExitStack() as stack:
        brokers = _start_brokers(plan, stack)
        return [row for setup in plan.setups for row in _measure_setup(plan, setup, brokers)]


def _start_brokers(plan: Plan, stack: ExitStack) -> dict[str, Broker]:
    """Start one broker of each kind. They inherit the processor of the benchmark."""
    wanted = {one.broker for one in plan.contestants}
    brokers: dict[str, Broker] = {}
    for kind in KINDS:
        if kind.name in wanted and kind.missing is None:
            broker = brokers[kind.name] = kind.launch()
            stack.callback(broker.stop)
            broker.start()
    return brokers


def _measure_setup(plan: Plan, setup: Setup, brokers: Mapping[str, Broker]) -> list[Row]:
    obstacles = {one: _obstacle(one, brokers) for one in plan.contestants}
    measured = [one for one, obstacle in obstacles.items() if obstacle is None]
    found: dict[Contestant, list[_Round]] = {one: [] for one in measured}
    for one in interleave(measured, plan.rounds):
        found[one].append(_measure_round(plan, setup, one, brokers[one.broker]))
    others = list(zip(*(found[one] for one in measured if not one.way.is_ours), strict=True))
    best = _Best(
        [_best_p99(results) for results in others],
        [max(one.rate for one in results) for results in others],
    )
    return [
        _summarise(setup, one, found[one], best)
        if obstacle is None
        else Row(setup.label, one.way.label, one.way.is_ours, one.is_target, obstacle=obstacle)
        for one, obstacle in obstacles.items()
    ]


def _best_p99(results: Sequence[_Round]) -> float:
    """Return the least p99 of those who delivered everything; it means little of others."""
    return min((one.steady.p99 for one in results if one.steady.delivered == 1), default=math.inf)


def _obstacle(one: Contestant, brokers: Mapping[str, Broker]) -> str | None:
    return one.way.obstacle() if one.broker in brokers else f"no server for it: {one.broker}"


def _measure_round(plan: Plan, setup: Setup, one: Contestant, broker: Broker) -> _Round:
    with Pair(one.way, broker.url, plan.size) as pair:
        pair.connect(setup.rooms, setup.members)
        pair.talk(setup.steady, plan.warmup, plan.patience)
        steady = pair.talk(setup.steady, plan.seconds, plan.patience)
        published = _count_published(
            one, broker, lambda: pair.talk(setup.steady, plan.warmup, plan.patience)
        )
        # With more to do each message costs less, so this is an estimate from below.
        rate, load = _find_rate(plan, pair, start=0.7e6 / steady.cost)
    return _Round(steady, published, rate, load)


def _count_published(one: Contestant, broker: Broker, talk: Callable[[], Talked]) -> float:
    """Return how many messages the broker was given for each; not counting wshub's probes."""
    if one.way.is_ours:
        with broker.counting("wshub") as channels:
            messages = talk().messages
        return len(channels) / messages
    assert isinstance(broker, RedisAdmin)
    before = broker.published
    messages = talk().messages
    return (broker.published - before) / messages


def _find_rate(plan: Plan, pair: Pair, start: float) -> tuple[float, float]:
    """Return the highest rate that is kept up, and the share of the load generator at it."""
    low = high = 0.0
    load = 0.0
    rate = start
    steps = plan.steps
    while steps and rate >= SLOWEST:
        talked = pair.talk(rate, plan.trial, plan.lag)
        if talked.delivered == 1:
            low, load = rate, talked.load
        else:
            high = rate
        if talked.is_left_over:
            break  # what comes now would be counted as an answer to what is sent next
        if low and high:
            rate = (low * high) ** 0.5
            steps -= 1
        else:
            rate = 2 * rate if low else rate / 2
    return low, load


class _Best(NamedTuple):
    """The best of the others in each round."""

    p99: list[float]
    rate: list[float]


def _summarise(setup: Setup, one: Contestant, found: Sequence[_Round], best: _Best) -> Row:
    p99 = [each.steady.p99 for each in found]
    rate = [each.rate for each in found]
    return Row(
        setup.label,
        one.way.label,
        one.way.is_ours,
        one.is_target,
        p50=Figure.of(each.steady.p50 for each in found),
        p99=Figure.of(p99),
        latency_ratio=Figure.of_ratio(p99, best.p99) if best.p99 else None,
        rate=Figure.of(rate),
        rate_ratio=Figure.of_ratio(rate, best.rate) if best.rate and all(best.rate) else None,
        cost=Figure.of(each.steady.cost for each in found),
        published=max(each.published for each in found),
        delivered=min(each.steady.delivered for each in found),
        sending_lag=max(each.steady.sending_lag for each in found),
        load=max(each.load for each in found),
    )


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return Markdown tables by name."""
    return {
        "workers": table(
            (
                "rooms",
                "way",
                "p50, ms",
                "p99, ms",
                "p99 in units of the best other",
                "messages a second",
                "in units of the best other",
                "CPU of both workers, µs a message",
                "messages on the broker",
            ),
            [(row.setup, row.way, *_show(row)) for row in rows],
        ),
        "workers-load": table(
            ("rooms", "way", "late in sending, ms", "CPU at the highest rate"),
            [
                (row.setup, row.way, f"{row.sending_lag:.1f}", f"{100 * row.load:.0f} %")
                for row in rows
                if row.is_measured
            ],
        ),
    }


def charts(rows: Sequence[Row]) -> dict[str, str]:
    """Return SVG charts by name."""
    title = "From a client of one worker to a client of another"
    return {
        "workers-latency": draw(title, "p99 latency, ms", _groups(rows, _latency)),
        "workers-rate": draw(title, "messages a second, at most", _groups(rows, _rate)),
    }


def _show(row: Row) -> tuple[str, ...]:
    if row.p50 is None or row.p99 is None or row.rate is None or row.cost is None:
        return (f"not measured: {row.obstacle}", *[""] * 6)
    latency, rate = row.latency_ratio, row.rate_ratio
    return (
        f"{row.p50.median:.2f}",
        row.p99.show(2) + ("" if row.delivered == 1 else f", {100 * row.delivered:.1f} % came"),
        "" if latency is None else latency.show(2) + _aim(row, f"≤ {LATENCY_TARGET}"),
        row.rate.show(0),
        "" if rate is None else rate.show(2) + _aim(row, f"≥ {RATE_TARGET}"),
        f"{row.cost.median:.0f}",
        f"{row.published:.2f}",
    )


def _aim(row: Row, target: str) -> str:
    return f", target {target}" if row.is_target else ""


def _groups(
    rows: Sequence[Row], describe: Callable[[Row], tuple[Figure | None, str]]
) -> list[Group]:
    setups = dict.fromkeys(row.setup for row in rows)
    return [
        Group(
            setup,
            [
                Bar(row.way, *describe(row), is_ours=row.is_ours)
                for row in rows
                if row.setup == setup
            ],
        )
        for setup in setups
    ]


def _latency(row: Row) -> tuple[Figure | None, str]:
    return _bar(row, row.p99, 2)


def _rate(row: Row) -> tuple[Figure | None, str]:
    return _bar(row, row.rate, 0)


def _bar(row: Row, figure: Figure | None, places: int) -> tuple[Figure | None, str]:
    if figure is None:
        return None, f"not measured: {row.obstacle}"
    return figure, f"{figure.median:.{places}f}"
