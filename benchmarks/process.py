"""Processes that a benchmark starts, asks and measures."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from benchmarks.floor import FLOOR, compiled_floor
from benchmarks.machine import cores

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("Delivery", "Growth", "MeasurementFailed", "Process", "Processes", "Rig", "run_module")

ROOT = Path(__file__).resolve().parents[1]


class MeasurementFailed(Exception):
    """A process did not do what it was asked in time, or has ended."""


class Process:
    """A process of ours on a processor of its own, killed at the end of its block."""

    def __init__(self, *command: str, core: int | None) -> None:
        pinned = [] if core is None else ["--core", str(core)]
        self._name = " ".join(command)
        self._process = subprocess.Popen(
            [*command, *pinned],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self._answers = self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def cpu_ns(self) -> int:
        """Nanoseconds of processor time, user and system, that it has used so far."""
        # clock_getcpuclockid(3): exact, and the process is not disturbed.
        return time.clock_gettime_ns((~self._process.pid << 3) | 2)

    @property
    def cpu_ticks(self) -> tuple[int, int]:
        """Processor time in and out of the kernel, in ticks of its clock: right over many."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]  # proc_pid_stat(5)
        return int(system), int(user)

    @property
    def private_memory(self) -> int:
        """Bytes of memory that are resident and not shared. The process pauses for it."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return sum(int(size) for size in re.findall(r"Private_\w+: *(\d+) kB", rollup)) * 1024

    @property
    def resident_memory(self) -> int:
        """Bytes of memory that are resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def ask(self, command: str, *, within: float = 120, **arguments: object) -> Any:
        """Have it carry out a command; return the result. Raises `MeasurementFailed`."""
        self.tell(command, **arguments)
        return self.answer(within)["result"]

    def tell(self, command: str, **arguments: object) -> None:
        """Have it carry out a command; the answer comes later."""
        self._requests.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        self._requests.flush()

    def has_answered(self) -> bool:
        """Whether `answer()` would return at once."""
        return bool(select.select([self._answers], [], [], 0)[0])

    def answer(self, within: float = 120) -> dict[str, Any]:
        """Return the next line that it says. Raises `MeasurementFailed`."""
        if not select.select([self._answers], [], [], within)[0]:
            raise MeasurementFailed(f"{self._name} did not answer within {within} s")
        line = self._answers.readline()
        if not line:
            raise MeasurementFailed(f"{self._name} has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Delivery(NamedTuple):
    """
    What the server took.

    Attributes:
        cost: µs of processor time for each delivery.
        wire: Bytes on the wire for each delivery.
        ticks: Processor time in and out of the kernel, in ticks of its clock, for all of them.
    """

    cost: float
    wire: float
    ticks: tuple[int, int]


class Processes:
    """Processes that end with the block, the last one first."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


class Rig(Processes):
    """
    One server and its clients: two processes, killed at the end of the block.

    The first connection waits until the server has started, so several start at the same time.

    Args:
        server: A module of `benchmarks.servers`, or `floor`.
        ws: uvicorn's implementation of WebSockets.
        loop: Event loop.
        path: What clients connect to.
        dialect: What they speak, a name in `benchmarks.dialect`.
        trace: Have Python trace what it allocates.
        compressed: Clients offer permessage-deflate, as browsers do, and insist on it.
    """

    def __init__(
        self,
        server: str,
        *,
        ws: str = "websockets-sansio",
        loop: str = "asyncio",
        path: str = "/ws",
        dialect: str = "plain",
        trace: bool = False,
        compressed: bool = False,
    ) -> None:
        super().__init__()
        server_core, load_core = cores()
        self._clients: dict[str, Any] = {"path": path, "dialect": dialect, "compressed": compressed}
        if server == FLOOR:
            command = [str(self._stack.enter_context(compiled_floor()))]
        else:
            command = [*run_module("benchmarks.servers"), server, "--ws", ws, "--loop", loop]
            command += ["--trace"] if trace else []
        # The server ends first: it would complain of clients that all vanish.
        self.load = self._stack.enter_context(
            Process(*run_module("benchmarks.load"), core=load_core)
        )
        self.server = self._stack.enter_context(Process(*command, core=server_core))
        self._port: int | None = None
        self.count = 0

    def connect(self, count: int) -> None:
        """Open connections that read, and wait until the server has them."""
        opened = self.load.ask("connect", port=self._await_port(), count=count, **self._clients)
        if opened != count:
            raise MeasurementFailed(f"{opened} of {count} connections were accepted")
        self.count += count
        self.await_count(self.count)

    def stall(self, count: int) -> None:
        """Open connections that never read, and wait until the server has them."""
        self.load.ask("stall", port=self._await_port(), count=count, path=self._clients["path"])
        self.await_count(self.count + count)

    def close(self) -> None:
        """Close all connections that read, and wait until the server knows."""
        self.load.ask("close")
        self.count = 0
        self.await_count(0)

    def await_count(self, count: int, within: float = 60) -> None:
        """Wait until the server has so many connections. Raises `MeasurementFailed`."""
        deadline = time.monotonic() + within
        while (found := self.server.ask("count")) != count:
            if time.monotonic() > deadline:
                raise MeasurementFailed(f"the server has {found} connections instead of {count}")
            time.sleep(0.02)

    @property
    def port(self) -> int:
        """Where the server listens, once it has started."""
        return self._await_port()

    def _await_port(self) -> int:
        if self._port is None:
            self._port = self.server.answer()["port"]
        return self._port

    def broadcast(self, *, messages: int, recipients: int, **arguments: object) -> float:
        """Send, wait until everything is there; return µs of the server's CPU per delivery."""
        return self.deliver(messages=messages, recipients=recipients, **arguments).cost

    def deliver(self, *, messages: int, recipients: int, **arguments: object) -> Delivery:
        """Send, wait until everything is there; return what a delivery took."""
        expected = messages * recipients
        before, (system, user) = self.server.cpu_ns, self.server.cpu_ticks
        self.load.tell("wait", frames=expected)
        self.server.tell("broadcast", messages=messages, **arguments)
        self.server.answer()
        received = self.load.answer()["result"]
        if received["frames"] != expected:
            raise MeasurementFailed(f"{received['frames']} of {expected} messages arrived")
        cost = (self.server.cpu_ns - before) / expected / 1000
        after = self.server.cpu_ticks
        ticks = (after[0] - system, after[1] - user)
        return Delivery(cost, received["bytes"] / expected, ticks)


class Growth:
    """How a server's memory changes."""

    def __init__(self, rig: Rig) -> None:
        self._server = rig.server
        self._bytes = 0
        self.measure()

    def measure(self) -> int:
        """Return the bytes that it grew by since the last time."""
        self._server.ask("collect")
        before, self._bytes = self._bytes, self._server.private_memory
        return self._bytes - before


def run_module(module: str) -> list[str]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", module]
