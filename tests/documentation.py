"""The pages of the documentation, and what is on them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"^ *--8<--\n *([^:\n]+):?([^\n]*)\n *--8<--$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its code, and the line of the page that it begins on."""

    language: str
    code: str
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        language = found[2].split()[0] if found[2] else ""
        yield Block(language, textwrap.dedent(found[3]), text.count("\n", 0, found.start(3)))


def run(name: str) -> Any:
    """Execute the Python blocks of a page, in their order, and return them as a module."""
    page = ROOT / name
    module = ModuleType(re.sub(r"\W", "_", name))
    for language, code, line in blocks_of(page):
        if language == "python" and not INCLUDE.fullmatch(code.strip()):
            # Empty lines in front make tracebacks point into the page.
            exec(compile("\n" * line + code, page, "exec"), vars(module))  # noqa: S102 (our pages)
    return module


def find_tests(name: str, definition: str) -> list[str]:
    """Return the tests on a page, of those that begin with `def` or with `async def`."""
    return re.findall(rf"^{definition} (test_\w+)", (ROOT / name).read_text(), re.MULTILINE)


def table_of(name: str, heading: str) -> list[list[str]]:
    """Return the rows of the table on a page whose first heading is `heading`."""
    _, found, rest = (ROOT / name).read_text().partition(f"\n| {heading} |")
    assert found, f"{name} has no table with {heading!r}"
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
