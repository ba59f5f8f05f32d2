"""Counts the frames that a server sends, as cheaply as Python can."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("FrameReader",)

STAMP = 20
"""Length of a time in a message: `@` and nanoseconds. It begins in the first 16 bytes."""

WINDOW = 10 + 16 + STAMP
"""Bytes of a frame that hold its header and its time."""

LENGTH_16 = 126
CONTROL = 0x08
COMPRESSED = 0x40


class FrameReader:
    """
    Finds the data frames in what one connection receives. Servers do not mask theirs.

    Attributes:
        notice: Called for each data frame once it is complete, with the time in it, or 0.
    """

    __slots__ = ("_missing", "_rest", "_stamp", "notice")

    def __init__(self, notice: Callable[[int], None]) -> None:
        self.notice = notice
        self._rest = b""
        self._missing = 0
        self._stamp = 0

    def feed(self, data: memoryview) -> None:
        """Take what has arrived."""
        if self._missing:
            taken = min(self._missing, len(data))
            self._missing -= taken
            if self._missing:
                return
            self.notice(self._stamp)
            data = data[taken:]
        elif self._rest:
            data = memoryview(self._rest + data)
            self._rest = b""
        while data:
            header, length = _measure(data)
            end = header + length
            if not header or len(data) < min(end, WINDOW):
                self._rest = bytes(data)
                return
            if data[0] & CONTROL:  # at most 125 bytes, and nothing that counts
                if len(data) < end:
                    self._rest = bytes(data)
                    return
            else:
                if not data[0] & COMPRESSED:
                    self._stamp = _find_stamp(bytes(data[header : min(end, WINDOW)]))
                if len(data) < end:
                    self._missing = end - len(data)
                    return
                self.notice(self._stamp)
            data = data[end:]


def _measure(data: memoryview) -> tuple[int, int]:
    """Return the lengths of a frame's header and payload; 0 for a header that is not complete."""
    if len(data) < 2:  # noqa: PLR2004  (the smallest header)
        return 0, 0
    length = data[1]
    if length < LENGTH_16:
        return 2, length
    header = 4 if length == LENGTH_16 else 10
    if len(data) < header:
        return 0, 0
    return header, int.from_bytes(data[2:header])


def _find_stamp(payload: bytes) -> int:
    start = payload.find(b"@") + 1
    return int(payload[start : start + STAMP - 1]) if start else 0
