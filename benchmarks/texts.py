"""What is sent: text that is all the same, and JSON as an application would send it."""

from __future__ import annotations

import json
import random
import uuid
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("KINDS", "texts")

KINDS = ("same", "json")
COUNT = 500
"""Different messages. Together they are longer than any window that a compressor looks back."""

WORDS = 2_000
"""Of a vocabulary in which, as in any language, few words are frequent and many are rare."""

CONSONANTS, VOWELS = "bcdfghklmnprstvw", "aeiou"
NAMES = ("Ada", "Björn", "Chidi", "Dolores", "Emre", "Fatima", "Grace", "Haruki", "Ines", "Jürgen")


@cache
def texts(kind: str, size: int) -> Sequence[str]:
    """Return messages of `size` bytes: one of `same`, or many different ones of `json`."""
    return ("x" * size,) if kind == "same" else tuple(_write(size))


def _write(size: int) -> list[str]:
    chance = random.Random(1)  # noqa: S311  (the same messages every time)
    words = [_invent(chance) for _ in range(WORDS)]
    weights = list(accumulate(1 / rank for rank in range(1, WORDS + 1)))
    messages: list[str] = []
    for number in range(COUNT):
        document = {
            "type": "message",
            "id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "room": f"team-{chance.randrange(40)}",
            "sequence": 48_000 + number,
            "sent_at": f"2026-03-01T14:{number // 60:02}:{number % 60 + chance.random():09.6f}Z",
            "user": {"id": chance.randrange(100_000), "name": chance.choice(NAMES)},
            "reactions": [],
            "text": "",
        }
        room = size - len(_dump(document).encode())
        text = " ".join(chance.choices(words, cum_weights=weights, k=max(1, room // 2)))
        document["text"] = text[:room]
        messages.append(_dump(document))
    return messages


def _dump(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _invent(chance: random.Random) -> str:
    syllables = chance.choices((1, 2, 3), (3, 5, 2))[0]
    return "".join(
        chance.choice(CONSONANTS) + chance.choice(VOWELS) + chance.choice(("", "", "n", "s", "r"))
        for _ in range(syllables)
    )
