"""Horizontal bars as SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Figure

__all__ = ("Bar", "Group", "draw")

WIDTH = 760
LEFT = 270
RIGHT = 150
"""Room for the names of the bars, and for the figures behind them."""

BAR = 18
GAP = 8
MARGIN = 20
HEAD = 64
GROUP_HEAD = 24

NAMESPACE = "http://www.w3.org/2000/svg"

# Shades that are told apart on paper too; wshub's is the accent of the documentation.
REFERENCE_COLOUR = "#9aa3b2"
OUR_COLOUR = "#3f51b5"

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2430 }
.title { font-size: 16px; font-weight: 600 }
.note { fill: #5b6372 }
.group { font-weight: 600 }
.name { text-anchor: end }
.spread { stroke: #1f2430; stroke-width: 1.5 }
.mark { stroke: #c2410c; stroke-width: 1.5; stroke-dasharray: 4 3 }
"""


class Bar(NamedTuple):
    """One bar: its name, how long it is, what is written behind it, and whether it is wshub's."""

    name: str
    figure: Figure | None
    text: str
    is_ours: bool = False


class Group(NamedTuple):
    """Bars under a heading; an empty one is left out."""

    heading: str
    bars: Sequence[Bar]


def draw(title: str, note: str, groups: Sequence[Group], *, mark: float | None = None) -> str:
    """Return a picture of `groups`, all on one scale that begins at zero; `mark` gets a line."""
    figures = [bar.figure for group in groups for bar in group.bars if bar.figure is not None]
    scale = (WIDTH - LEFT - RIGHT) / max((figure.high for figure in figures), default=1.0)
    top = HEAD
    parts: list[str] = []
    for group in groups:
        if group.heading:
            parts.append(_text(MARGIN, top + 13, group.heading, "group"))
            top += GROUP_HEAD
        for bar in group.bars:
            parts += _draw_bar(bar, top, scale)
            top += BAR + GAP
        top += GAP
    if mark is not None:
        parts.append(f'<path class="mark" d="M{LEFT + mark * scale:.1f} {HEAD}V{top - GAP}"/>')
    return "\n".join(
        [
            f'<svg xmlns="{NAMESPACE}" role="img" viewBox="0 0 {WIDTH} {top + GAP}">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{top + GAP}" rx="6" fill="#ffffff"/>',
            _text(MARGIN, 28, title, "title"),
            _text(MARGIN, 48, note, "note"),
            *parts,
            "</svg>\n",
        ]
    )


def _draw_bar(bar: Bar, top: int, scale: float) -> list[str]:
    middle = top + BAR / 2
    parts = [_text(LEFT - 10, middle + 4, bar.name, "name")]
    end = float(LEFT)
    if bar.figure is not None:
        colour = OUR_COLOUR if bar.is_ours else REFERENCE_COLOUR
        length = max(0.0, bar.figure.median * scale)
        low, high = (LEFT + max(0.0, value) * scale for value in (bar.figure.low, bar.figure.high))
        end = max(LEFT + length, high)
        parts += [
            f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}"/>',
        ]
    parts.append(_text(end + 8, middle + 4, bar.text, ""))
    return parts


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
