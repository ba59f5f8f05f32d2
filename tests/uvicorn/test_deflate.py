"""permessage-deflate: what is agreed upon, and who gets which frame."""

from __future__ import annotations

import random
import zlib
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.managed import ManagedApp, echo
from tests.uvicorn.cases import closing
from tests.uvicorn.wire import (
    COMPRESSED,
    Head,
    Wire,
    answered,
    code_of,
    deflate,
    frames_of,
    inflate,
    open_wire,
)
from tests.uvicorn.witness import ECHOES, FANOUT, STOCK, Witness
from wshub import ConnectionManager, OutboxOptions, _frames
from wshub.testing import Frame, Opcode, frame, live_server, until

if TYPE_CHECKING:
    from collections.abc import Sequence


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


async def echo_all(url: str, offer: str, witness: Witness) -> Echoes:
    """Send messages to an echo, compressed where that was agreed upon; return what came."""
    ended = len(witness.saw)
    async with open_wire(url, {"Sec-WebSocket-Extensions": offer} if offer else {}) as wire:
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


async def echo_everywhere(ws: str, offer: str) -> list[Echoes]:
    """Do so at every endpoint of one server."""
    witness = Witness()
    async with live_server(witness.app, ws=ws) as server:
        return [await echo_all(server.ws + path, offer, witness) for path in ECHOES]


@pytest.mark.parametrize("offer", OFFERS)
async def test_it_agrees_to_the_same(offer: str) -> None:
    """It adds what makes frames shareable, and messages come back within what was agreed upon."""
    echoes = [
        *(Frame(BINARY if i % 2 == 0 else TEXT, m, fin=True) for i, m in enumerate(MESSAGES)),
        Frame(CLOSE, closing(1000), fin=True),
    ]
    ours, theirs = await echo_everywhere(FANOUT, offer), await echo_everywhere(STOCK, offer)
    for our, their in zip(ours, theirs, strict=True):
        assert our.head.without_ours() == their.head.without_ours()
        assert our.frames == their.frames == echoes
        assert our.saw == their.saw
        parameters = OFFERS[offer]
        assert our.head.extensions == (
            None if parameters is None else f"{OFFER}; server_no_context_takeover; {parameters}"
        )


async def test_a_malformed_offer_is_refused_the_same() -> None:
    """With 400, before the app hears of it."""
    told = []
    for ws in (FANOUT, STOCK):
        async with (
            live_server(Witness().app, ws=ws) as server,
            open_wire(server.ws + ECHOES[0], {"Sec-WebSocket-Extensions": "a;;b"}) as wire,
        ):
            await wire.read_to_the_end()
        told.append((wire.head, wire.received))
    assert told[0] == told[1]
    assert " 400 " in told[0][0].status


@pytest.mark.parametrize("path", ECHOES)
async def test_compression_may_be_turned_off(path: str) -> None:
    """`--ws-per-message-deflate false` counts for it, too."""
    witness = Witness()
    async with (
        live_server(witness.app, ws=FANOUT, ws_per_message_deflate=False) as server,
        open_wire(server.ws + path, {"Sec-WebSocket-Extensions": OFFER}) as wire,
    ):
        assert wire.head.extensions is None
        await wire.send(frame(TEXT, MESSAGES[-1]))
        assert await wire.read(70_010) == answered(TEXT, MESSAGES[-1])


# --- what clients compress


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


async def send_all(ws: str) -> dict[str, tuple[list[Frame], object]]:
    """Send each of these to each endpoint; return what client and app saw."""
    witness, told = Witness(), dict[str, tuple[list[Frame], object]]()
    async with live_server(witness.app, ws=ws, ws_max_size=20_000) as server:
        for path in ECHOES:
            for name, (sent, expected) in SENT.items():
                async with open_wire(server.ws + path, {"Sec-WebSocket-Extensions": OFFER}) as wire:
                    await wire.send(sent)
                    if not isinstance(expected, int):
                        await wire.read_frames(len(expected) + (name == PINGED))
                        await wire.send(frame(CLOSE, closing(1000)))
                    await wire.read_to_the_end()
                await until(lambda: len(witness.saw) > len(told))
                agreed = Agreed.read(wire.head)
                assert agreed is not None
                frames = inflate(wire.received, takeover=agreed.server_takeover)
                told[f"{name} to {path}"] = (frames, witness.saw[-1])
                if isinstance(expected, int):
                    assert code_of(frames[-1].payload) == expected, name
                else:
                    data = [found.payload for found in frames if found.opcode in {TEXT, BINARY}]
                    assert data == expected, name
    return told


async def test_what_clients_compress_means_the_same() -> None:
    """However it is compressed and cut into frames, or refused."""
    assert await send_all(FANOUT) == await send_all(STOCK)


# --- one frame for many


async def wires(stack: AsyncExitStack, url: str, offers: Sequence[str]) -> list[Wire]:
    """Connect clients with these offers, in this order."""
    return [
        await stack.enter_async_context(
            open_wire(url, {"Sec-WebSocket-Extensions": offer} if offer else {})
        )
        for offer in offers
    ]


async def test_each_kind_of_client_gets_a_frame_that_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients of one window share their frame, and others get what they can read."""
    made: list[int] = []
    compress = _frames._compress

    def count(payload: bytes, window_bits: int) -> bytes:
        made.append(window_bits)
        return compress(payload, window_bits)

    monkeypatch.setattr(_frames, "_compress", count)
    managed = ManagedApp(echo)
    small, large = "permessage-deflate; server_max_window_bits=9", OFFER
    offers = ["", small, large, small, "", large, large, small, large, ""]
    message = make_text(20_000, 2)
    async with live_server(managed.app, ws=FANOUT) as server, AsyncExitStack() as stack:
        clients = await wires(stack, f"{server.ws}/ws?", offers)
        await until(lambda: len(managed.opened) == len(offers))
        await managed.manager.broadcast(message.decode())
        for client, offer in zip(clients, offers, strict=True):
            await client.read_frames(1)
            ((found, reserved),) = frames_of(client.received)
            assert reserved == (COMPRESSED if offer else 0)
            bits = {small: 9, large: 12}.get(offer, 15)
            assert inflate(client.received, window_bits=bits, takeover=False) == [
                Frame(TEXT, message, fin=True)
            ]
            assert client.received == clients[offers.index(offer)].received
            assert found.opcode == TEXT
        assert sorted(made) == [9, 12]
        # What fits a larger window alone shows that the smaller one was heeded.
        with pytest.raises(zlib.error, match="too far back"):
            inflate(clients[2].received, window_bits=9)
        assert len(clients[1].received) > len(clients[2].received)


def incompressible(size: int) -> bytes:
    """Return a payload that is compressed to exactly so many bytes."""
    for length in range(size, 0, -1):  # pragma: no branch  (there is one)
        payload = random.Random(length).randbytes(length)  # noqa: S311  (no secret)
        if len(_frames._compress(payload, 12)) == size:
            break
    return payload


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
async def test_compressed_frames_of_each_form_of_length(size: int) -> None:
    """In both directions: it is what is compressed whose length is told."""
    payload = incompressible(size)
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(compress_from=1)))
    async with (
        live_server(managed.app, ws=FANOUT) as server,
        open_wire(f"{server.ws}/ws?", {"Sec-WebSocket-Extensions": OFFER}) as wire,
    ):
        await wire.send(squeezed(BINARY, _frames._compress(payload, 12)))
        await wire.read_frames(1)
        ((found, reserved),) = frames_of(wire.received)
        assert (len(found.payload), reserved) == (size, COMPRESSED)
        (whole,) = inflate(wire.received, window_bits=12, takeover=False)
        assert whole.payload == payload


async def test_a_late_client_can_read_what_comes_first() -> None:
    """No frame depends on what was sent before it."""
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=FANOUT) as server, AsyncExitStack() as stack:
        (early,) = await wires(stack, f"{server.ws}/ws?", [OFFER])
        await until(lambda: len(managed.opened) == 1)
        await managed.manager.broadcast(LONG)
        await early.read_frames(1)
        (late,) = await wires(stack, f"{server.ws}/ws?", [OFFER])
        await until(lambda: len(managed.opened) == 2)
        await managed.manager.broadcast(LONG)
        await managed.manager.broadcast(LONG)
        await late.read_frames(2)
        await early.read_frames(2)
        assert inflate(late.received) == [Frame(BINARY, LONG, fin=True)] * 2
        assert early.received == late.received + late.received[: len(late.received) // 2]


@pytest.mark.parametrize(("compress_from", "sizes"), [(0, ()), (1, (0,)), (1000, (0, 1, 999))])
async def test_small_messages_are_not_compressed(
    compress_from: int, sizes: tuple[int, ...]
) -> None:
    """`OutboxOptions.compress_from` is the size in bytes from which they are."""
    manager = ConnectionManager(outbox=OutboxOptions(compress_from=compress_from))
    await _check_sizes(ManagedApp(echo, manager), plain=sizes, compressed=(compress_from, 5000))


async def test_messages_are_compressed_from_128_bytes_on() -> None:
    """Unless told otherwise; bytes count, not characters."""
    await _check_sizes(ManagedApp(echo), plain=(0, 127), compressed=(128, 1000))
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=FANOUT) as server, AsyncExitStack() as stack:
        (client,) = await wires(stack, f"{server.ws}/ws?", [OFFER])
        await until(lambda: managed.opened)
        await managed.manager.broadcast("ä" * 63)
        await managed.manager.broadcast("ä" * 64)
        await client.read_frames(2)
        assert [reserved for _, reserved in frames_of(client.received)] == [0, COMPRESSED]


async def _check_sizes(
    managed: ManagedApp, *, plain: Sequence[int], compressed: Sequence[int]
) -> None:
    sizes = [*plain, *compressed]
    async with live_server(managed.app, ws=FANOUT) as server, AsyncExitStack() as stack:
        (client,) = await wires(stack, f"{server.ws}/ws?", [OFFER])
        await until(lambda: managed.opened)
        for size in sizes:
            await managed.opened[0].send("a" * size)
            await managed.manager.broadcast(b"b" * size)
        await client.read_frames(2 * len(sizes))
    bits = [reserved for _, reserved in frames_of(client.received)]
    assert bits == [0] * 2 * len(plain) + [COMPRESSED] * 2 * len(compressed)
    payloads = [found.payload for found in inflate(client.received)]
    assert payloads == [kind * size for size in sizes for kind in (b"a", b"b")]
