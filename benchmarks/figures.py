"""A measured figure: the median of several rounds, and how far the rounds are apart."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ("Figure",)


@dataclass(frozen=True)
class Figure:
    """
    Median and quartiles of several rounds.

    Attributes:
        median: Of all rounds.
        low: A quarter of the rounds is below.
        high: A quarter of the rounds is above.
    """

    median: float
    low: float
    high: float

    def show(self, places: int) -> str:
        """Return the median and, in brackets, the quartiles."""
        return f"{self.median:.{places}f} ({self.low:.{places}f}–{self.high:.{places}f})"

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """Summarise one sample a round."""
        values = list(samples)
        low, _, high = quantiles(values, n=4, method="inclusive") if values[1:] else values * 3
        return cls(*(float(f"{value:.4g}") for value in (median(values), low, high)))

    @classmethod
    def of_ratio(cls, samples: Sequence[float], reference: Sequence[float]) -> Self:
        """Summarise by what factor `samples` exceed `reference`, round by round."""
        return cls.of(one / other for one, other in zip(samples, reference, strict=True))
