"""Measure, and write what was found: `python -m benchmarks fanout scale handshakes`."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from benchmarks import chat, fanout, handshakes, idle, memory, peers, scale, stalled, workers
from benchmarks.machine import Machine, cores, describe_machine, pin
from benchmarks.report import describe

if TYPE_CHECKING:
    from collections.abc import Sequence


class Measurement(Protocol):
    """
    A module that measures something.

    Attributes:
        FULL: The plan that `measure` takes for figures to keep.
        QUICK: The plan for a rough look.
        Plan: Says how much is measured.
        Row: A dataclass, of which `measure` returns a list.
    """

    FULL: Any
    QUICK: Any
    Plan: Any
    Row: Any

    def measure(self, plan: Any, /) -> list[Any]:
        """Measure what the plan says."""
        ...

    def tables(self, rows: Any, /) -> dict[str, str]:
        """Return Markdown tables by name."""
        ...

    def charts(self, rows: Any, /) -> dict[str, str]:
        """Return SVG charts by name."""
        ...


MEASUREMENTS: dict[str, Measurement] = {
    "fanout": fanout,
    "stalled": stalled,
    "scale": scale,
    "memory": memory,
    "peers": peers,
    "chat": chat,
    "idle": idle,
    "handshakes": handshakes,
    "workers": workers,
}
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "assets"


@dataclass(frozen=True)
class Result:
    """What one measurement found, and where."""

    machine: Machine
    rows: list[Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is asked for; print it, and keep it unless it was only a quick look."""
    options = parse(argv)
    pin(cores()[1])
    for name in options.measurements or MEASUREMENTS:
        module = MEASUREMENTS[name]
        print(f"==> {name}", file=sys.stderr)
        start = time.monotonic()
        if options.render:
            result = load(name, options.machine)
        else:
            plan = module.QUICK if options.quick else module.FULL
            result = Result(describe_machine(), module.measure(plan))
        print(describe(result.machine))
        for text in module.tables(result.rows).values():
            print(text)
        if not options.quick:
            keep(name, result, options.machine)
        print(f"    {time.monotonic() - start:.0f} s", file=sys.stderr)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "measurements", nargs="*", metavar="measurement", help=f"of {', '.join(MEASUREMENTS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a rough look in less than a minute; keeps nothing"
    )
    parser.add_argument(
        "--render", action="store_true", help="only write tables and charts of the last run anew"
    )
    parser.add_argument(
        "--machine", default="", help="a name under which to keep tables beside those of another"
    )
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.error("processors are assigned and measured with calls that only Linux has")
    unknown = [name for name in options.measurements if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")
    return options


def keep(name: str, result: Result, machine: str) -> None:
    """Write a result as JSON, its tables as Markdown and its charts, of one machine, as SVG."""
    module = MEASUREMENTS[name]
    suffix = suffix_of(machine)
    RESULTS.mkdir(exist_ok=True)
    document = TypeAdapter(Result).dump_json(result, indent=1) + b"\n"
    (RESULTS / f"{name}{suffix}.json").write_bytes(document)
    (RESULTS / f"{name}{suffix}-machine.md").write_text(describe(result.machine))
    for table, text in module.tables(result.rows).items():
        (RESULTS / f"{table}{suffix}.md").write_text(text)
    if not machine:
        for chart, picture in module.charts(result.rows).items():
            (PICTURES / f"{chart}.svg").write_text(picture)


def load(name: str, machine: str) -> Result:
    """Read the result of the last full run."""
    path = RESULTS / f"{name}{suffix_of(machine)}.json"
    document = TypeAdapter(Result).validate_json(path.read_bytes())
    row: TypeAdapter[Any] = TypeAdapter(MEASUREMENTS[name].Row)
    return Result(document.machine, [row.validate_python(found) for found in document.rows])


def suffix_of(machine: str) -> str:
    """Return what the names of files have for one of several machines."""
    return f"-{machine}" if machine else ""


if __name__ == "__main__":
    main()
