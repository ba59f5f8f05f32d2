"""What clients say: frames ready to be sent, for each way to greet and to speak."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("DIALECTS", "Dialect", "mask")

SHORT, MEDIUM = 125, 0xFFFF
"""The longest payloads that are told in one byte, and in two."""


def mask(payload: bytes, first_byte: int = 0x81) -> bytes:
    """Return a client's frame. Its mask is of zeros: servers take it off all the same."""
    length = len(payload)
    if length <= SHORT:
        head = bytes((first_byte, 0x80 | length))
    elif length <= MEDIUM:
        head = bytes((first_byte, 0xFE)) + length.to_bytes(2)
    else:
        head = bytes((first_byte, 0xFF)) + length.to_bytes(8)
    return head + bytes(4) + payload


class Dialect(NamedTuple):
    """
    What is said in WebSocket messages before, and around, what people say.

    Attributes:
        greetings: What to answer to each of the first messages of a server; None for nothing.
        prefix: What stands before the text of a message.
        suffix: What stands behind it.
    """

    greetings: tuple[bytes | None, ...] = ()
    prefix: bytes = b""
    suffix: bytes = b""

    def frame(self, text: bytes) -> bytes:
        """Return the frame with which a client says `text`."""
        return mask(self.prefix + text + self.suffix)


DIALECTS = {
    "plain": Dialect(),
    # engine.io opens, Socket.IO is asked to connect, and says that it has.
    "socketio": Dialect((mask(b"40"), None), b'42["message","', b'"]'),
}
