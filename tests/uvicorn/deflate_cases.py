"""permessage-deflate as clients use it, whatever the server."""

from __future__ import annotations

import random
import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from tests.uvicorn.cases import closing
from tests.uvicorn.wire import (
    COMPRESSED,
    Head,
    code_of,
    deflate,
    frames_of,
    inflate,
    open_wire,
)
from tests.uvicorn.witness import ECHOES, Witness
from wshub.testing import Frame, Opcode, frame, live_server, until

if TYPE_CHECKING:
    import ssl

__all__ = (
    "LONG",
    "MESSAGES",
    "OFFER",
    "OFFERS",
    "echo_everywhere",
    "make_text",
    "send_all",
    "squeezed",
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = Opcode

OFFER = "permessage-deflate"
IS_OLD = int(version("websockets").partition(".")[0]) < 17
"""Whether websockets does some things otherwise than those after it."""

OFFERS: dict[str, str | None] = {
    "permessage-deflate": "server_max_window_bits=12",
    "permessage-deflate; client_max_window_bits": (
        "server_max_window_bits=12; client_max_window_bits=12"
    ),
    "permessage-deflate; client_max_window_bits=10": (
        "server_max_window_bits=12; client_max_window_bits=10"
    ),
    "permessage-deflate; client_max_window_bits=15": (
        "server_max_window_bits=12; client_max_window_bits=12"
    ),
    "permessage-deflate; server_max_window_bits=8": None,  # zlib cannot
    "permessage-deflate; server_max_window_bits=9": "server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=10": "server_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=15": "server_max_window_bits=12",
    "permessage-deflate; client_no_context_takeover": (
        "client_no_context_takeover; server_max_window_bits=12"
    ),
    "permessage-deflate; server_no_context_takeover": "server_max_window_bits=12",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    'server_max_window_bits="10"; client_max_window_bits=9': (
        "client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=9"
    ),
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": (
        "server_max_window_bits=12"
    ),
    "permessage-deflate; mystery=1, permessage-deflate; server_max_window_bits=11": (
        "server_max_window_bits=11"
    ),
    "permessage-deflate, permessage-deflate; server_max_window_bits=9": (
        "server_max_window_bits=12"
    ),
    "x-webkit-deflate-frame, permessage-deflate": "server_max_window_bits=12",
    "permessage-deflate; mystery": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9": None,
    "permessage-deflate; client_no_context_takeover=1": None,
    "x-webkit-deflate-frame": None,
    "": None,
}
"""What clients offer, and the parameters that both protocols agree to."""
if IS_OLD:  # pragma: no cover
    OFFERS = {offer: agreed for offer, agreed in OFFERS.items() if "bits=8" not in offer}


def make_text(size: int, seed: int) -> bytes:
    """Return text that compresses somewhat, also by what stands far before."""
    source = random.Random(seed)  # noqa: S311  (nothing is secret)
    words = [source.randbytes(6).hex() for _ in range(60)]
    text = " ".join(source.choice(words) for _ in range(size // 13 + 1))
    return text.encode()[:size]


MESSAGES = [make_text(size, 1) for size in (0, 1, 125, 126, 127, 128, 1000, 1000, 65_535, 70_000)]


class Agreed(NamedTuple):
    """The parameters of a server's answer, as a client has to understand it."""

    server_bits: int
    client_bits: int
    server_takeover: bool
    client_takeover: bool

    @classmethod
    def read(cls, head: Head) -> Agreed | None:
        """Return what was agreed upon, or None if nothing was."""
        if head.extensions is None:
            return None
        name, *parameters = head.extensions.split("; ")
        assert name == OFFER
        values = dict(pair.partition("=")[::2] for pair in parameters)
        return cls(
            int(values.get("server_max_window_bits", 15)),
            int(values.get("client_max_window_bits", 15)),
            "server_no_context_takeover" not in values,
            "client_no_context_takeover" not in values,
        )


class Compressor:
    """Compresses as a client does that makes use of all it may."""

    def __init__(self, bits: int, *, takeover: bool) -> None:
        self._bits = bits
        self._takeover = takeover
        self._encoder = zlib.compressobj(wbits=-bits)

    def __call__(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._encoder = zlib.compressobj(wbits=-self._bits)
        data = self._encoder.compress(payload) + self._encoder.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(b"\x00\x00\xff\xff")


class Echoes(NamedTuple):
    """What client and app saw."""

    head: Head
    frames: list[Frame]
    saw: list[object]


async def echo_all(
    url: str, offer: str, witness: Witness, context: ssl.SSLContext | None
) -> Echoes:
    """Send messages to an echo, compressed where that was agreed upon; return what came."""
    ended = len(witness.saw)
    headers = {"Sec-WebSocket-Extensions": offer} if offer else {}
    async with open_wire(url, headers, context=context) as wire:
        agreed = Agreed.read(wire.head)
        for number, message in enumerate(MESSAGES):
            opcode = TEXT if number % 2 else BINARY
            if agreed is None:
                await wire.send(frame(opcode, message))
            else:
                if number == 0:
                    compress = Compressor(agreed.client_bits, takeover=agreed.client_takeover)
                await wire.send(frame(opcode, compress(message), reserved=COMPRESSED))
            await wire.read_frames(1)
        await wire.send(frame(CLOSE, closing(1000)))
        await wire.read_to_the_end()
    await until(lambda: len(witness.saw) > ended)
    if agreed is None:
        frames = [found for found, reserved in frames_of(wire.received) if reserved == 0]
    else:
        frames = inflate(
            wire.received, window_bits=agreed.server_bits, takeover=agreed.server_takeover
        )
    return Echoes(wire.head, frames, witness.saw[-1])


async def echo_everywhere(
    ws: str, offer: str, certificate: tuple[str, ssl.SSLContext] | None = None
) -> list[Echoes]:
    """Do so at every endpoint of one server, over TLS if there is a certificate for that."""
    witness, (path, context) = Witness(), certificate or (None, None)
    async with live_server(witness.app, ws=ws, ssl_certfile=path) as server:
        return [await echo_all(server.ws + where, offer, witness, context) for where in ECHOES]


def squeezed(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Return a compressed frame of a client."""
    return frame(opcode, payload, fin=fin, reserved=COMPRESSED)


PINGED = "with a ping between fragments"
LONG = b"long enough to be worth it, " * 100
SPLIT = "ä€😀ß".encode() * 30
SENT: dict[str, tuple[bytes, list[bytes] | int]] = {
    "an empty message": (squeezed(TEXT, b"\x00"), [b""]),
    "one that was not compressed": (frame(TEXT, LONG), [LONG]),
    "either kind in turn": (
        squeezed(TEXT, deflate(LONG)) + frame(TEXT, b"a") + squeezed(TEXT, deflate(b"b")),
        [LONG, b"a", b"b"],
    ),
    "in fragments": (
        squeezed(TEXT, deflate(LONG)[:10], fin=False) + frame(CONT, deflate(LONG)[10:]),
        [LONG],
    ),
    "in fragments of a byte": (
        squeezed(TEXT, deflate(LONG)[:1], fin=False)
        + b"".join(frame(CONT, deflate(LONG)[i : i + 1], fin=False) for i in range(1, 10))
        + frame(CONT, deflate(LONG)[10:]),
        [LONG],
    ),
    "characters in fragments of a byte": (
        squeezed(TEXT, deflate(SPLIT)[:1], fin=False)
        + b"".join(frame(CONT, bytes([byte]), fin=False) for byte in deflate(SPLIT)[1:])
        + frame(CONT),
        [SPLIT],
    ),
    PINGED: (
        squeezed(TEXT, deflate(LONG)[:10], fin=False)
        + frame(PING, b"?")
        + frame(CONT, deflate(LONG)[10:]),
        [LONG],
    ),
    "stored, not compressed": (squeezed(TEXT, b"\x00\x05\x00\xfa\xffHello\x00"), [b"Hello"]),
    "with a final block": (squeezed(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), [b"Hello"]),
    "no deflate at all": (squeezed(TEXT, b"\xff\xff\xff\xff"), 1002),
    "deflate that refers to nothing": (squeezed(TEXT, b"\x02\x1c\x00"), 1002),
    "a compressed ping": (squeezed(PING, b"a"), 1002),
    "a compressed continuation": (
        squeezed(TEXT, deflate(LONG)[:10], fin=False) + squeezed(CONT, deflate(LONG)[10:]),
        1002,
    ),
    "what is not UTF-8": (squeezed(TEXT, deflate(b"a\xff")), 1007),
    "too much": (squeezed(TEXT, deflate(bytes(20_001))), 1009),
    "too much in fragments": (
        squeezed(TEXT, deflate(bytes(20_001))[:10], fin=False)
        + frame(CONT, deflate(bytes(20_001))[10:]),
        1009,
    ),
    "as much as is allowed": (squeezed(BINARY, deflate(bytes(20_000))), [bytes(20_000)]),
}


if IS_OLD:  # pragma: no cover
    del SENT["a compressed continuation"]  # which stock uvicorn takes with it, too


async def send_all(
    ws: str, certificate: tuple[str, ssl.SSLContext] | None = None
) -> dict[str, tuple[list[Frame], object]]:
    """Send each of these to each endpoint; return what client and app saw."""
    witness, told = Witness(), dict[str, tuple[list[Frame], object]]()
    path, context = certificate or (None, None)
    headers = {"Sec-WebSocket-Extensions": OFFER}
    async with live_server(witness.app, ws=ws, ws_max_size=20_000, ssl_certfile=path) as server:
        for where in ECHOES:
            for name, (sent, expected) in SENT.items():
                async with open_wire(server.ws + where, headers, context=context) as wire:
                    await wire.send(sent)
                    if not isinstance(expected, int):
                        await wire.read_frames(len(expected) + (name == PINGED))
                        await wire.send(frame(CLOSE, closing(1000)))
                    await wire.read_to_the_end()
                await until(lambda: len(witness.saw) > len(told))
                agreed = Agreed.read(wire.head)
                assert agreed is not None
                frames = inflate(wire.received, takeover=agreed.server_takeover)
                told[f"{name} to {where}"] = (frames, witness.saw[-1])
                if isinstance(expected, int):
                    assert code_of(frames[-1].payload) == expected, name
                else:
                    data = [found.payload for found in frames if found.opcode in {TEXT, BINARY}]
                    assert data == expected, name
    return told
