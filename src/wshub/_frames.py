"""Frames of the WebSocket protocol as a server sends them: whole, unmasked, shared by recipients."""

from __future__ import annotations

import zlib
from typing import NamedTuple

__all__ = ("PLAIN", "FrameForm", "encode_frame")

_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_COMPRESSED = 0x40
_TAIL = b"\x00\x00\xff\xff"
_MEMORY_LEVEL = 5
"""zlib's, 1 to 9: as uvicorn and websockets have it."""


class FrameForm(NamedTuple):
    """
    What one peer expects frames to look like.

    Attributes:
        window_bits: Base 2 logarithm of the window to compress with, 9 to 15; 0: not at all.
        compress_from: Bytes of payload below which compression is not worth it.
    """

    window_bits: int
    compress_from: int


PLAIN = FrameForm(0, 0)


def encode_frame(data: str | bytes, form: FrameForm) -> bytes:
    """
    Return `data` as one final frame (RFC 6455 §5.2).

    It is compressed without context (RFC 7692 §7.1.1.1), so that it is right for every peer of
    the same form, whatever each was sent before.
    """
    opcode = _FINAL_TEXT if isinstance(data, str) else _FINAL_BINARY
    payload = data.encode() if isinstance(data, str) else data
    if form.window_bits and len(payload) >= form.compress_from:
        opcode |= _COMPRESSED
        payload = _compress(payload, form.window_bits)
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 65536:
        return bytes((opcode, 126)) + size.to_bytes(2) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


def _compress(payload: bytes, window_bits: int) -> bytes:
    encoder = zlib.compressobj(wbits=-window_bits, memLevel=_MEMORY_LEVEL)
    compressed = encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(_TAIL)  # RFC 7692 §7.2.1
