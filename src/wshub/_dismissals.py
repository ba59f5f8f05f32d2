"""Who was told to leave a moment ago, for those who were still on their way in."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wshub.messages import Dismissal, DismissalAudience

__all__ = ("Dismissals",)

MEMORY = 300.0
"""Seconds, at most, from the check of a credential to the end of a handshake by a ticket for it."""

MAX_DISMISSALS = 10_000
"""Dismissals that are remembered at most; the oldest are forgotten first."""


class Dismissals:
    """Remembers dismissals for some minutes. Times are those of `time.monotonic()`."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: OrderedDict[tuple[DismissalAudience, str], tuple[float, Dismissal]] = (
            OrderedDict()
        )

    def note(self, dismissal: Dismissal) -> None:
        """Remember `dismissal`."""
        key = (dismissal.audience, dismissal.name)
        self._recent.pop(key, None)
        self._recent[key] = (monotonic(), dismissal)
        while len(self._recent) > MAX_DISMISSALS or self._is_old():
            self._recent.popitem(last=False)

    def find(self, audience: DismissalAudience, name: str, since: float) -> Dismissal | None:
        """Return the last dismissal of an audience, if it came after `since`."""
        noted = self._recent.get((audience, name))
        return noted[1] if noted is not None and noted[0] >= since else None

    def _is_old(self) -> bool:
        oldest, _ = next(iter(self._recent.values()))
        return monotonic() - oldest > MEMORY
