"""Rings that do not do what they are asked to, and whether there are any."""

from __future__ import annotations

import pytest

from wshub._ring import Ring


def find_obstacle() -> str | None:
    """Return why there is no ring here, or None."""
    try:
        Ring()
    except OSError as error:
        return f"no io_uring here: {error.strerror}"
    return None


OBSTACLE = find_obstacle()
needs_ring = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


def shorten(ring: Ring) -> None:
    """Let the kernel be asked for one write less than `ring` asks for."""
    call = ring._call

    def ask(number: int, descriptor: int, count: int, least: int, *rest: object) -> int:
        return int(call(number, descriptor, count - 1, least - 1, *rest))

    ring._call = ask


def overlook(ring: Ring, count: int) -> None:
    """Let so many of the writes that were done first seem not to be."""
    call = ring._call

    def ask(*arguments: object) -> int:
        taken = int(call(*arguments))
        ring._seen[0] += count
        return taken

    ring._call = ask
