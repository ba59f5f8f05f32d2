"""What is sent to whom by which servers, to compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.ways import FANOUT, FLOOR, LITESTAR, RING, SOCKETIO, STOCK, WEBSOCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.ways import Way

__all__ = ("BURST", "FULL", "KIB", "QUICK", "SINGLE", "WAYS", "Plan", "Stage", "Traffic")

WAYS = (FLOOR, WEBSOCKETS, LITESTAR, SOCKETIO, STOCK, FANOUT, RING)
COMPRESSING = (WEBSOCKETS, STOCK, FANOUT, RING)


class Traffic(NamedTuple):
    """
    What is sent.

    Attributes:
        size: Bytes of a message.
        per_turn: Messages in each turn of the event loop.
        messages: Messages of one round.
        kind: Of which of `benchmarks.texts`.
    """

    size: int = 64
    per_turn: int = 1
    messages: int = 5
    kind: str = "same"


SINGLE = Traffic()
BURST = Traffic(per_turn=10, messages=10)
JSON = Traffic(size=512, kind="json")


class Stage(NamedTuple):
    """
    Servers that live side by side, and what they send.

    Attributes:
        loop: Event loop.
        recipients: Clients of each server.
        traffics: What is sent.
        is_compressed: Whether clients offer, and servers use, permessage-deflate.
        starts: How often the processes are started anew.
    """

    loop: str
    recipients: int
    traffics: tuple[Traffic, ...]
    is_compressed: bool = False
    starts: int = 3

    @property
    def ways(self) -> tuple[Way, ...]:
        """What is compared."""
        return COMPRESSING if self.is_compressed else WAYS


KIB = 1024
STANDARD = 500
SIZES = tuple(Traffic(size=size) for size in (KIB, 16 * KIB))


@dataclass(frozen=True)
class Plan:
    """
    How much to measure.

    Rounds are short, and every server has its turn in each of them, so that what else the machine
    does meets all alike. `rounds` are those of all starts together. The first traffic of the first
    stage is what the others are varied from.
    """

    stages: Sequence[Stage] = (
        Stage("asyncio", STANDARD, (SINGLE, BURST, *SIZES)),
        Stage("uvloop", STANDARD, (SINGLE, BURST)),
        Stage("asyncio", STANDARD, (JSON,), is_compressed=True),
        Stage("uvloop", STANDARD, (JSON,), is_compressed=True),
        Stage("asyncio", 100, (Traffic(messages=20),)),
        Stage("asyncio", 1_000, (Traffic(messages=3),)),
        Stage("asyncio", 10_000, (Traffic(messages=1),), starts=1),
    )
    rounds: int = 60


FULL = Plan()
QUICK = Plan(
    stages=(
        Stage("asyncio", 200, (SINGLE, BURST), starts=1),
        Stage("asyncio", 200, (JSON,), is_compressed=True, starts=1),
    ),
    rounds=15,
)
