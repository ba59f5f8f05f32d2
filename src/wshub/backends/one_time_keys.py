"""Keys that are worth something once, in the memory of one process."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from wshub._clock import LoopClock
from wshub._servers import warn_of_workers
from wshub.exceptions import BackendUnavailable

if TYPE_CHECKING:
    from wshub._clock import Clock

__all__ = ("MemoryOneTimeKeys",)


class MemoryOneTimeKeys:
    """
    Keeps one-time keys in this process. Where a server was told to start several, it warns, once.

    Args:
        max_keys: Keys whose time is not over, spent ones included. Beyond them none is taken.
        clock: Tells the time; for tests.

    Raises:
        ValueError: `max_keys` is not positive.
    """

    def __init__(self, *, max_keys: int = 100_000, clock: Clock | None = None) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, not {max_keys!r}")
        warn_of_workers(
            "MemoryOneTimeKeys are taken by this one alone, so others refuse its tickets",
            "keys that they share, say Tickets(one_time_keys_from_url('redis://…'))",
        )
        self._max_keys = max_keys
        self._clock = clock or LoopClock()
        self._values: dict[str, str] = {}
        self._ends: list[tuple[float, str]] = []

    async def put(self, key_hash: str, value: str, ttl: float) -> None:
        """
        Keep `value` under a key that is new, for `ttl` seconds.

        Raises:
            BackendUnavailable: There are too many keys already.
            ValueError: The key is there already, or `ttl` is not positive.
        """
        if not 0 < ttl < math.inf:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl!r}")
        self._forget()
        if key_hash in self._values:
            raise ValueError("this key is there already; keys are random and used once")
        if len(self._ends) >= self._max_keys:
            raise BackendUnavailable("MemoryOneTimeKeys", f"it holds {self._max_keys} keys")
        self._values[key_hash] = value
        heappush(self._ends, (self._clock.time() + ttl, key_hash))

    async def take(self, key_hash: str) -> str | None:
        """Return what is kept under a key, and keep it no longer; None if there is nothing."""
        self._forget()
        return self._values.pop(key_hash, None)

    def _forget(self) -> None:
        now = self._clock.time()
        while self._ends and self._ends[0][0] <= now:
            self._values.pop(heappop(self._ends)[1], None)
