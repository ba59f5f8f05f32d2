"""How often each address may do something."""

from __future__ import annotations

import math
from collections import OrderedDict

__all__ = ("AddressRate",)

MAX_ADDRESSES = 10_000
"""Addresses that are counted at the same time; the one that was silent longest is forgotten."""


class AddressRate:
    """
    A token bucket for each address. What is refused takes no token.

    Args:
        per_second: Tokens that come back in a second.
        burst: Tokens of an address that was silent.

    Raises:
        ValueError: A number is out of its range.
    """

    __slots__ = ("_buckets", "_burst", "_per_second")

    def __init__(self, per_second: float, burst: int) -> None:
        if not 0 < per_second < math.inf:
            raise ValueError(f"per_second must be a positive number, not {per_second!r}")
        if burst < 1:
            raise ValueError(f"burst must be at least 1, not {burst!r}")
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, address: str, now: float) -> bool:
        """Take a token of `address` at the time `now`; return whether there was one."""
        level, filled = self._buckets.pop(address, (float(self._burst), now))
        level = min(self._burst, level + (now - filled) * self._per_second)
        admitted = level >= 1
        self._buckets[address] = (level - admitted, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return admitted
