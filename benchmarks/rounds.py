"""The order in which things that are compared take their turns."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ("interleave",)

Entry = TypeVar("Entry")


def interleave(entries: Iterable[Entry], rounds: int) -> Iterator[Entry]:
    """
    Yield all entries in each round, every round in another order.

    What else the machine does meanwhile then meets all of them alike.
    """
    order = list(entries)
    shuffler = random.Random(1)  # noqa: S311  (the same order every time)
    for _ in range(rounds):
        shuffler.shuffle(order)
        yield from order
