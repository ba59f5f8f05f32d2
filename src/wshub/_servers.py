"""How many workers a server was told to start, as far as a worker can see that."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ("count_workers", "warn_of_workers")

logger = logging.getLogger("wshub")

_SERVERS = {
    "fastapi": "WEB_CONCURRENCY",
    "granian": "GRANIAN_WORKERS",
    "gunicorn": "WEB_CONCURRENCY",
    "hypercorn": "",
    "uvicorn": "WEB_CONCURRENCY",
}
"""Commands of servers, and the variable of each for the number of workers."""

_OPTIONS = ("--workers", "-w")

_STARTERS = ("hypercorn", "uvicorn")
"""Servers that start their workers by multiprocessing, and hand them their configuration."""


def count_workers(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Return the number of workers that the command of this process asks for; 1 if unknown."""
    arguments = sys.argv if arguments is None else arguments
    environment = os.environ if environment is None else environment
    path = Path(arguments[0]) if arguments else Path()
    server = path.parent.name if path.name == "__main__.py" else path.stem
    if server not in _SERVERS or "--reload" in arguments:
        return 1
    words = [environment.get(_SERVERS[server], "")]
    if server == "gunicorn":
        words += _values(shlex.split(environment.get("GUNICORN_CMD_ARGS", "")))
    words += _values(arguments[1:])
    return max([int(word) for word in words if word.isdecimal()][-1:], default=1)


def warn_of_workers(problem: str, cure: str) -> None:
    """Warn, once in a process, if there are others that know nothing of what is in its memory."""
    configured = _count_configured()
    workers = count_workers() if configured is None else configured
    if workers > 1:
        _warn(workers, problem, cure)


@cache
def _warn(workers: int, problem: str, cure: str) -> None:
    logger.warning(
        "this is one of %d workers, and its %s; pass %s, or run one worker", workers, problem, cure
    )


def _values(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is given for the number of workers, in order."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in _OPTIONS:
            yield value if equals else "".join(arguments[position + 1 : position + 2])
        elif argument.startswith("-w") and argument[2:].isdecimal():
            yield argument[2:]


def _count_configured() -> int | None:
    """Return the number of workers that the server which started this process has configured."""
    # There is no public way to what a process was given, and its attributes may go any day.
    process = current_process()
    module = str(getattr(getattr(process, "_target", None), "__module__", ""))
    config = getattr(process, "_kwargs", {}).get("config")
    # uvicorn leaves it at one worker if it reloads.
    workers = 1 if getattr(config, "should_reload", False) else getattr(config, "workers", None)
    started = module.partition(".")[0] in _STARTERS
    return workers if started and isinstance(workers, int) else None
