"""What clients do, and what is to come of it, whatever the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.uvicorn.wire import answered
from wshub.testing import Opcode, frame

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("ANSWERS", "CASES", "LIMIT", "TIGHT", "TIGHT_LIMIT", "Case", "closing")

CONT, TEXT, BINARY, CLOSE, PING, PONG = Opcode

LIMIT = 2 * 1024 * 1024
"""Bytes of a message that a server has to take for these."""

TIGHT_LIMIT = 1000
"""The same for some."""


class Case(NamedTuple):
    """
    What a client does.

    Attributes:
        talk: What it sends, and what it waits for each time.
        last: What it sends at the end.
        code: With which code the server closes; None: without one.
    """

    talk: Sequence[tuple[bytes, bytes]]
    last: bytes = frame(CLOSE, b"\x03\xe8")
    code: int | None = 1000


def closing(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame."""
    return code.to_bytes(2) + reason.encode()


def echoed(opcode: int, payload: bytes) -> Case:
    """Return the case of one message that comes back."""
    return Case([(frame(opcode, payload), answered(opcode, payload))])


def in_parts(opcode: int, *parts: bytes, between: bytes = b"", answer: bytes = b"") -> Case:
    """Return the case of a message in fragments, with something between them."""
    last = len(parts) - 1
    sent = between.join(
        frame(CONT if number else opcode, part, fin=number == last)
        for number, part in enumerate(parts)
    )
    return Case([(sent, answer * last + answered(opcode, b"".join(parts)))])


def refused(sent: bytes, code: int = 1002) -> Case:
    """Return the case of something that the server closes for, after a message that it takes."""
    return Case([(frame(TEXT, b"good"), answered(TEXT, b"good"))], sent, code)


EURO = "€".encode()
SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 1024 * 1024)
SIZED: dict[str, Case] = {
    **{f"text of {size} bytes": echoed(TEXT, b"x" * size) for size in SIZES},
    **{f"binary of {size} bytes": echoed(BINARY, b"\xff" * size) for size in SIZES},
    "text beyond ASCII": echoed(TEXT, "ä€𝄞\0".encode()),
    "a message of the limit": echoed(BINARY, bytes(LIMIT)),
    "a length in more bytes than it needs": Case(
        [(b"\x82\xfe\x00\x01" + bytes(4) + b"a", answered(BINARY, b"a"))]
    ),
    "one message after the other": Case(
        [(frame(TEXT, b"%d" % number), answered(TEXT, b"%d" % number)) for number in range(20)]
    ),
    "many messages at once": Case(
        [
            (
                b"".join(frame(TEXT, b"%d" % number) for number in range(500)),
                b"".join(answered(TEXT, b"%d" % number) for number in range(500)),
            )
        ]
    ),
}
FRAGMENTS: dict[str, Case] = {
    "text in two fragments": in_parts(TEXT, b"one ", b"two"),
    "binary in three fragments": in_parts(BINARY, b"one ", b"two ", b"three"),
    "empty fragments": in_parts(TEXT, b"", b"", b"one", b"", b""),
    "nothing in fragments": in_parts(BINARY, b"", b"", b""),
    "a hundred fragments": in_parts(TEXT, *[b"x"] * 100),
    "fragments of every size of length": in_parts(
        BINARY, b"a" * 125, b"b" * 126, b"c" * 65_535, b"d" * 65_536
    ),
    "pings between fragments": in_parts(
        TEXT, b"one ", b"two ", b"three", between=frame(PING, b"?"), answer=answered(PONG, b"?")
    ),
    "pongs between fragments": in_parts(BINARY, b"one", b"two", between=frame(PONG, b"!")),
    "fragments one after the other": Case(
        [
            (frame(TEXT, b"a", fin=False), b""),
            (frame(PING), answered(PONG)),
            (frame(CONT, b"b", fin=False), b""),
            (frame(PING), answered(PONG)),
            (frame(CONT, b"c"), answered(TEXT, b"abc")),
        ]
    ),
}
PINGS: dict[str, Case] = {
    **{
        f"a ping of {size} bytes": Case([(frame(PING, b"p" * size), answered(PONG, b"p" * size))])
        for size in (0, 1, 125)
    },
    "a pong that nobody asked for": Case([(frame(PONG, b"here"), b"")]),
    "many pings": Case(
        [
            (
                b"".join(frame(PING, b"%d" % number) for number in range(50)),
                b"".join(answered(PONG, b"%d" % number) for number in range(50)),
            )
        ]
    ),
    "a ping behind a message": Case(
        [
            (frame(TEXT, b"a"), answered(TEXT, b"a")),
            (frame(PING, b"b"), answered(PONG, b"b")),
            (frame(TEXT, b"c"), answered(TEXT, b"c")),
        ]
    ),
}
CLOSES: dict[str, Case] = {
    "a close without a code": Case([], frame(CLOSE), None),
    **{
        f"a close with {code}": Case([], frame(CLOSE, closing(code)), code)
        for code in (1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999)
    },
    "a close that comes in pieces": Case(
        [(frame(CLOSE, closing(4000, "pieces")), answered(CLOSE, closing(4000, "pieces")))],
        b"",
        4000,
    ),
    "a close with a reason": Case([], frame(CLOSE, closing(1000, "grüße")), 1000),
    "a close with the longest reason": Case([], frame(CLOSE, closing(4000, "r" * 123)), 4000),
    "a close behind a message": Case([], frame(TEXT, b"a") + frame(CLOSE, closing(1000)), 1000),
    "messages behind a close": Case([], frame(CLOSE, closing(1001)) + frame(TEXT, b"a"), 1001),
    **{
        f"a close with the invalid {code}": Case([], frame(CLOSE, closing(code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535)
    },
    "a close with half a code": refused(frame(CLOSE, b"\x03")),
    "a close whose reason is not UTF-8": refused(frame(CLOSE, closing(1000) + b"\xff"), 1007),
    "a close that is too long": refused(frame(CLOSE, closing(1000, "r" * 124))),
    "a close between fragments": refused(frame(TEXT, b"a", fin=False) + frame(CLOSE)),
}
UTF_8: dict[str, Case] = {
    "UTF-8 split across fragments": in_parts(TEXT, EURO[:1], EURO[1:2], EURO[2:]),
    "UTF-8 split around a ping": in_parts(
        TEXT, EURO[:2], EURO[2:], between=frame(PING), answer=answered(PONG)
    ),
    "binary that is not UTF-8 in fragments": in_parts(BINARY, EURO[:1], EURO[:1]),
    "text that is not UTF-8": refused(frame(TEXT, b"a\xffb"), 1007),
    "text that ends within a character": refused(frame(TEXT, EURO[:2]), 1007),
    "an overlong form": refused(frame(TEXT, b"\xc0\x80"), 1007),
    "a surrogate": refused(frame(TEXT, b"\xed\xa0\x80"), 1007),
    "a number beyond Unicode": refused(frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "fragments that are not UTF-8": refused(
        frame(TEXT, EURO[:1], fin=False) + frame(CONT, EURO[:1]), 1007
    ),
}
FORBIDDEN: dict[str, Case] = {
    **{
        f"unmasked {Opcode(opcode).name}": refused(frame(opcode, mask=False))
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
    },
    **{
        f"reserved bits {bits:03b}": refused(frame(TEXT, b"a", reserved=bits))
        for bits in range(1, 8)
    },
    **{
        f"reserved bits {bits:03b} of a ping": refused(frame(PING, b"a", reserved=bits))
        for bits in (1, 2, 4)
    },
    **{
        f"reserved opcode {opcode}": refused(frame(opcode, b"a"))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "a fragment of nothing": refused(frame(CONT, b"a")),
    "a last fragment again": refused(
        frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(CONT, b"c")
    ),
    "a message within another": refused(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")),
    "a ping in fragments": refused(frame(PING, b"a", fin=False)),
    "a ping that is too long": refused(frame(PING, bytes(126))),
    "HTTP": refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}
TOO_BIG: dict[str, Case] = {
    "a length over the limit, and nothing more": refused(
        b"\x82\xff" + (LIMIT + 1).to_bytes(8) + bytes(4), 1009
    ),
    "the greatest length": refused(b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
}

CASES: dict[str, dict[str, Case]] = {
    "sizes": SIZED,
    "fragments": FRAGMENTS,
    "pings": PINGS,
    "closes": CLOSES,
    "UTF-8": UTF_8,
    "forbidden": FORBIDDEN,
    "too big": TOO_BIG,
}
"""All cases, by what they are about."""

TIGHT: dict[str, Case] = {
    "a message of the limit": echoed(BINARY, bytes(TIGHT_LIMIT)),
    "fragments of the limit": in_parts(TEXT, b"a" * (TIGHT_LIMIT - 1), b"a"),
    "text over the limit": refused(frame(TEXT, b"a" * (TIGHT_LIMIT + 1)), 1009),
    "a message over the limit": refused(frame(BINARY, bytes(TIGHT_LIMIT + 1)), 1009),
    "fragments over the limit": refused(
        frame(BINARY, bytes(TIGHT_LIMIT), fin=False) + frame(CONT, b"a"), 1009
    ),
    "a fragment over the limit": refused(frame(BINARY, bytes(TIGHT_LIMIT + 1), fin=False), 1009),
}
"""The cases for a server with the tight limit."""

ANSWERS: dict[str, bytes] = {
    "the same": frame(CLOSE, closing(4000, "enough")),
    "another code": frame(CLOSE, closing(1000)),
    "no code": frame(CLOSE),
    "messages before it": frame(TEXT, b"b") * 3 + frame(CLOSE, closing(1000)),
    "a ping before it": frame(PING, b"?") + frame(CLOSE, closing(1000)),
    "fragments before it": frame(TEXT, b"b", fin=False) + frame(0, b"c") + frame(CLOSE),
    "half a message before it": frame(TEXT, b"b", fin=False) + frame(CLOSE),
    "text that is not UTF-8 before it": frame(TEXT, b"\xff") + frame(CLOSE),
    "an unmasked one": frame(CLOSE, mask=False),
    "half a frame": frame(CLOSE, closing(1000))[:3],
    "nothing": b"",
}
"""What a client says to a close frame before it closes its side."""
