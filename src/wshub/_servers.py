"""How many workers a server was told to start, as far as a worker can see that."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from functools import cache
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


@cache
def warn_of_workers(problem: str, cure: str) -> None:
    """Warn, once in a process, if there are others that know nothing of what is in its memory."""
    workers = count_workers()
    if workers > 1:
        logger.warning(
            "this is one of %d workers, and its %s; pass %s, or run one worker",
            workers,
            problem,
            cure,
        )


def _values(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is given for the number of workers, in order."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in _OPTIONS:
            yield value if equals else "".join(arguments[position + 1 : position + 2])
        elif argument.startswith("-w") and argument[2:].isdecimal():
            yield argument[2:]
