"""WebSocket frames as they are on the wire: RFC 6455 section 5.2."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ("BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Frame", "frame")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

LENGTH_IN_2_BYTES, LENGTH_IN_8_BYTES = 126, 127
"""What a frame has for its length when that follows in so many bytes."""


class Frame(NamedTuple):
    """
    A frame as it was received.

    Attributes:
        opcode: What kind of frame; the constants of this module name them.
        payload: Its bytes, unmasked.
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
        opcode: 0 to 15.
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
    return head + key + masked(payload, key)


def masked(payload: bytes, key: bytes) -> bytes:
    """Return `payload` under the masking `key`; twice is once not."""
    length = len(payload)
    repeated = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(length)
