"""Two worker processes behind one broker, and their clients."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.machine import cores
from benchmarks.process import MeasurementFailed, Process, Processes, run_module

if TYPE_CHECKING:
    from benchmarks.ways import Way

__all__ = ("Pair", "Talked")

DRAIN = 10
"""Seconds that workers which did not keep up have to deliver the rest."""


class Talked(NamedTuple):
    """
    What a period of talking gave.

    Attributes:
        messages: Messages that were sent to the first worker.
        delivered: Share of the deliveries that came in time.
        p50: Median latency, in ms, of the deliveries of the second worker.
        p99: Its 99th percentile.
        cost: µs of processor time, of both workers, for each message.
        sending_lag: ms by which the load generator was late in sending, 99th percentile.
        load: Share of a processor that the load generator used.
        is_left_over: Whether something did not come for long after that, and may yet.
    """

    messages: int
    delivered: float
    p50: float
    p99: float
    cost: float
    sending_lag: float
    load: float
    is_left_over: bool


class Pair(Processes):
    """
    Two workers on one processor, killed at the end of the block.

    The broker, and the load generator, which holds the clients of both, are on another. Both
    workers start at the same time.

    Args:
        way: The server, and how clients use it; its path is completed by the name of a room.
        broker: URL of what connects the workers.
        size: Bytes of a message.
    """

    def __init__(self, way: Way, broker: str, size: int) -> None:
        super().__init__()
        server_core, load_core = cores()
        self._dialect = way.dialect
        self._path = way.path
        self._size = size
        self._load = self._stack.enter_context(
            Process(*run_module("benchmarks.load"), core=load_core)
        )
        command = [*run_module("benchmarks.servers"), way.server, "--ws", way.ws]
        self._workers = [
            self._stack.enter_context(Process(*command, "--broker", broker, core=server_core))
            for _ in range(2)
        ]
        self._ports: list[int] = []
        self._speakers = self._audience = 0

    def connect(self, rooms: int, members: int) -> None:
        """Put `members` clients of either worker into each room; wait until they are in."""
        self._ports = [worker.answer()["port"] for worker in self._workers]
        # One by one: a library of those compared forgets members that enter at the same time.
        for member in range(members):
            for room in range(rooms):
                for number, port in enumerate(self._ports):
                    self._load.ask(
                        "connect",
                        port=port,
                        count=1,
                        path=self._path.format(room=f"room{room}"),
                        dialect=self._dialect,
                        timed=number == 1,
                    )
            for worker in self._workers:
                _await_count(worker, (member + 1) * rooms)
        self._speakers = rooms * members
        self._audience = 2 * members

    def talk(self, rate: float, seconds: float, patience: float) -> Talked:
        """
        Have the clients of the first worker say `rate` messages a second between them.

        Args:
            rate: Messages a second.
            seconds: For how long, at least.
            patience: Seconds that the last messages may take to be in time.
        """
        before = self._cpu_ns
        result = self._load.ask(
            "chat",
            seconds=seconds,
            period=self._speakers / rate,
            size=self._size,
            patience=patience,
            port=self._ports[0],
            audience=self._audience,
        )
        used = self._cpu_ns - before
        missing = result["expected"] - result["frames"]
        left = 0
        if missing:
            left = missing - self._load.ask("wait", frames=missing, timeout=DRAIN)["frames"]
        latency = self._load.ask("latency")
        messages = result["expected"] // self._audience
        return Talked(
            messages=messages,
            delivered=result["frames"] / result["expected"],
            p50=latency["p50"],
            p99=latency["p99"],
            cost=used / 1000 / messages,
            sending_lag=result["sending_lag"],
            load=result["share"],
            is_left_over=left > 0,
        )

    @property
    def _cpu_ns(self) -> int:
        return sum(worker.cpu_ns for worker in self._workers)


def _await_count(worker: Process, count: int, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while (found := worker.ask("count")) != count:
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"a worker has {found} connections instead of {count}")
        time.sleep(0.005)
