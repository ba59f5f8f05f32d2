"""How fast a peer may send: tokens that come back with time."""

from __future__ import annotations

from typing import Literal

__all__ = ("TokenBucket", "Verdict")

Verdict = Literal["fine", "warn", "close"]
"""What becomes of who took tokens."""


class TokenBucket:
    """
    Fills by `rate` tokens a second up to `burst` seconds' worth, and may be overdrawn by as much.

    Args:
        rate: Tokens a second.
        burst: Seconds' worth of tokens that it holds, and with which it starts.
        now: The time, in seconds.
    """

    __slots__ = ("_capacity", "_filled", "_level", "_rate", "_warned")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._capacity = max(1.0, rate * burst)
        self._level = self._capacity
        self._filled = now
        self._warned = False

    def take(self, tokens: float, now: float) -> Verdict:
        """Take `tokens` at the time `now`; warn once until it is out of debt again."""
        gained = (now - self._filled) * self._rate
        self._level = min(self._capacity, self._level + gained) - tokens
        self._filled = now
        if self._level < -self._capacity:
            return "close"
        warned, self._warned = self._warned, self._level < 0
        return "warn" if self._warned and not warned else "fine"
