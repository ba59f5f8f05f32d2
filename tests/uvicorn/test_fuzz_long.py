"""The same as in test_fuzz.py for minutes: other attacks all the time, and nothing grows."""

from __future__ import annotations

import gc
import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.uvicorn.attacks import LOOPS, fuzz

ROOT = Path(__file__).parents[2]

DURATION = 300.0
"""Seconds of the long run."""

GROWTH = 24 * 1024 * 1024
"""Bytes that the process may grow by in the long run; what leaks for each client shows."""

FEW = 20
"""Rounds of which the least counts: hypothesis itself takes and gives back tens of megabytes."""


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.timeout(900)
def test_clients_may_send_anything_for_minutes(loop: str) -> None:
    """The same with other attacks all the time; the process does not grow."""
    end, sizes = time.monotonic() + DURATION / len(LOOPS), list[int]()
    while time.monotonic() < end:
        fuzz(loop, 300, 2 + len(sizes))
        gc.collect()
        sizes.append(resident())
    assert len(sizes) > 3 * FEW
    assert min(sizes[-FEW:]) - min(sizes[FEW : 2 * FEW]) < GROWTH


def resident() -> int:
    """Return how many bytes of memory the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
def test_clients_may_send_what_reaches_most_of_the_code() -> None:
    """The same with bytes that a fuzzer chooses by the branches that they lead to."""
    command = [sys.executable, "-m", "tests.uvicorn.fuzz_bytes", "-max_total_time=150"]
    # Linux counts the memory of who starts a process as that of the process, at its most, and
    # this one may have grown by then; the shell between has not.
    ran = subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command, "-rss_limit_mb=1024", "-timeout=20"],
        cwd=ROOT,
        capture_output=True,
        timeout=350,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")[-5000:]
    assert b"Done " in ran.stderr
