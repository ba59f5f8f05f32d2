"""Who says something when, in a chat of which every message says when it was sent."""

from __future__ import annotations

import random
import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, Protocol

from benchmarks.frames import STAMP

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from benchmarks.dialect import Dialect

__all__ = ("Speaker", "Talk")

HEADSTART = 0.01
"""Seconds until the first may speak."""

NEVER = 1 << 62


class Speaker(Protocol):
    """A client that has shaken hands."""

    @property
    def socket(self) -> socket.socket:
        """Its connection, which does not block."""
        ...

    @property
    def dialect(self) -> Dialect:
        """What it speaks."""
        ...


class Talk:
    """
    Each speaker speaks once in every `period`, always at the same moment of it.

    The moments lie anywhere in the period, as they do where people talk, and are the same in
    every process. They are a schedule: a message that leaves late makes no other one late.

    Args:
        speakers: Who speaks.
        seconds: For how long, whole periods.
        period: Seconds between two messages of one of them.
        size: Bytes of a message.

    Attributes:
        count: Messages in all.
        due: When the next should leave, in ns of the monotonic clock.
        end: When the last period ends.
        lateness: By how many ns each message left late.
    """

    def __init__(
        self, speakers: Sequence[Speaker], *, seconds: float, period: float, size: int
    ) -> None:
        chance = random.Random(len(speakers))  # noqa: S311  (the same moments every time)
        moments = sorted(chance.random() for _ in speakers)
        turns = max(1, round(seconds / period))
        start = time.monotonic() + HEADSTART
        self._schedule = deque(
            (round((start + (turn + moment) * period) * 1e9), speaker)
            for turn in range(turns)
            for moment, speaker in zip(moments, speakers, strict=True)
        )
        self._size = max(size, STAMP)
        self.count = len(self._schedule)
        self.due = self._schedule[0][0]
        self.end = round((start + turns * period) * 1e9)
        self.lateness = array("q")

    def say_due(self) -> None:
        """Send the next message if its time has come."""
        if time.monotonic_ns() < self.due:
            return
        due, speaker = self._schedule.popleft()
        self.due = self._schedule[0][0] if self._schedule else NEVER
        now = time.monotonic_ns()
        frame = speaker.dialect.frame(f"@{now:019}".ljust(self._size, "x").encode())
        if speaker.socket.send(frame) != len(frame):
            raise RuntimeError("the server does not read what clients send")
        self.lateness.append(now - due)
