"""WebSocket frames as they are on the wire: RFC 6455 section 5.2."""

from __future__ import annotations

import os
from enum import IntEnum
from typing import NamedTuple

__all__ = ("Frame", "Opcode", "frame")

LENGTH_IN_2_BYTES, LENGTH_IN_8_BYTES = 126, 127
"""What a frame has for its length when that follows in so many bytes."""


class Opcode(IntEnum):
    """What kind of frame it is. The other ten numbers from 0 to 15 are reserved."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(NamedTuple):
    """
    A frame as it was received.

    Attributes:
        opcode: An `Opcode`, or a reserved number.
        payload: Its bytes.
        fin: Whether it is the last one of its message.
    """

    opcode: int
    payload: bytes
    fin: bool


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, reserved: int = 0
) -> bytes:
    """
    Return one frame, valid or not: nothing about it is checked.

    Args:
        opcode: An `Opcode`, or another number from 0 to 15.
        payload: Its bytes, of any length.
        fin: Whether it is the last one of its message.
        mask: Whether it is masked, as a client's frames have to be.
        reserved: The bits RSV1 (4), RSV2 (2) and RSV3 (1).
    """
    first = fin << 7 | reserved << 4 | opcode
    length = len(payload)
    if length < LENGTH_IN_2_BYTES:
        head = bytes([first, mask << 7 | length])
    elif length < 1 << 16:
        head = bytes([first, mask << 7 | LENGTH_IN_2_BYTES]) + length.to_bytes(2)
    else:
        head = bytes([first, mask << 7 | LENGTH_IN_8_BYTES]) + length.to_bytes(8)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + _mask(payload, key)


def _mask(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    repeated = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(length)
