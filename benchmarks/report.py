"""Results as files: JSON that can be read again, and Markdown that the documentation includes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.machine import Machine

__all__ = ("describe", "table")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; columns after the first that hold figures align right."""
    body = [list(row) for row in rows]
    marks = [
        "---:" if _holds_figures(row[column] for row in body) else "---"
        for column in range(len(head))
    ]
    lines = [list(head), marks, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def describe(machine: Machine) -> str:
    """Return a paragraph in Markdown on where figures are from."""
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    return (
        f"Measured on {machine.date}: {machine.processor}; {machine.system}; "
        f"{machine.python}; {packages}.\n"
    )


def _holds_figures(cells: Iterable[str]) -> bool:
    texts = [cell.lstrip("≤ ") for cell in cells if cell]
    return all(text[0].isdigit() or text[0] == "-" for text in texts)
