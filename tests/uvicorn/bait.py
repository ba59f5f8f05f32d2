"""Sockets that show whether somebody writes to the wrong one."""

from __future__ import annotations

import socket
from contextlib import suppress


class Bait:
    """Sockets that take the numbers which others have given back; nobody writes to them."""

    def __init__(self) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def lay(self, count: int) -> None:
        """Open some more."""
        for _ in range(count):
            mine, other = socket.socketpair()
            mine.settimeout(0)
            other.settimeout(0)
            self._pairs.append((mine, other))

    def took(self) -> list[bytes]:
        """Return what was written to any of them; close them all."""
        taken = []
        for pair in self._pairs:
            for end in pair:
                with suppress(BlockingIOError):
                    taken.append(end.recv(65536))
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._pairs.clear()
        return taken
