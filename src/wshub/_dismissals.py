"""Who was told to leave a moment ago, for those who were still on their way in."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from wshub._names import check_user_id
from wshub.exceptions import check_close_code, cut_reason
from wshub.messages import Dismissal

if TYPE_CHECKING:
    from wshub.messages import DismissalAudience

__all__ = ("Dismissals", "dismiss_user")

MEMORY = 300.0
"""Seconds, at most, from the check of a credential to the end of a handshake by a ticket for it."""

MAX_DISMISSALS = 10_000
"""Dismissals that are remembered at most; the oldest are forgotten first."""


def dismiss_user(user: str, code: int, reason: str) -> tuple[Dismissal, Dismissal]:
    """
    Return the orders that close all connections of `user`, to be given one after the other.

    The first goes to all workers, as nobody knows where the user is coming in just now. The second
    goes where the user is, behind what was sent there before.

    Raises:
        ValueError: The code cannot be sent.
        InvalidUserId: The id is empty or too long, or has control characters.
    """
    order = (check_user_id(user), check_close_code(code), cut_reason(reason))
    return Dismissal("newcomer", *order), Dismissal("user", *order)


class Dismissals:
    """Remembers dismissals for some minutes. Times are those of `time.monotonic()`."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: OrderedDict[tuple[DismissalAudience, str], tuple[float, Dismissal]] = (
            OrderedDict()
        )

    def note(self, dismissal: Dismissal) -> None:
        """Remember `dismissal`; one of newcomers as one of their user."""
        audience = "user" if dismissal.audience == "newcomer" else dismissal.audience
        key = (audience, dismissal.name)
        self._recent.pop(key, None)
        self._recent[key] = (monotonic(), dismissal)
        while len(self._recent) > MAX_DISMISSALS or self._is_old():
            self._recent.popitem(last=False)

    def find(self, audience: DismissalAudience, name: str | None, since: float) -> Dismissal | None:
        """Return the last dismissal of an audience, if it came after `since`. None has none."""
        noted = None if name is None else self._recent.get((audience, name))
        return noted[1] if noted is not None and noted[0] >= since else None

    def _is_old(self) -> bool:
        oldest, _ = next(iter(self._recent.values()))
        return monotonic() - oldest > MEMORY
