"""permessage-deflate: what is agreed upon, and who gets which frame."""

from __future__ import annotations

import random
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.managed import ManagedApp, echo
from tests.uvicorn.cases import closing
from tests.uvicorn.deflate_cases import (
    LONG,
    MESSAGES,
    OFFER,
    OFFERS,
    echo_everywhere,
    make_text,
    send_all,
    squeezed,
)
from tests.uvicorn.wire import COMPRESSED, Wire, answered, frames_of, inflate, open_wire
from tests.uvicorn.witness import ECHOES, FANOUT, STOCK, Witness
from wshub import ConnectionManager, OutboxOptions, _frames
from wshub.testing import Frame, Opcode, frame, live_server, until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence


CLOSE, TEXT, BINARY = Opcode.CLOSE, Opcode.TEXT, Opcode.BINARY

BOUNDED = "permessage-deflate; server_max_window_bits=10"


@pytest.mark.parametrize("offer", OFFERS)
async def test_it_agrees_to_the_same(offer: str) -> None:
    """It adds what makes frames shareable, and messages come back within what was agreed upon."""
    await _agree(offer)


@pytest.mark.parametrize("offer", [OFFER, BOUNDED, ""])
async def test_it_agrees_to_the_same_over_tls(
    offer: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """What is encrypted is compressed before, as without."""
    await _agree(offer, certificate)


async def _agree(offer: str, certificate: tuple[str, ssl.SSLContext] | None = None) -> None:
    echoes = [
        *(Frame(BINARY if i % 2 == 0 else TEXT, m, fin=True) for i, m in enumerate(MESSAGES)),
        Frame(CLOSE, closing(1000), fin=True),
    ]
    ours = await echo_everywhere(FANOUT, offer, certificate)
    theirs = await echo_everywhere(STOCK, offer, certificate)
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


async def test_what_clients_compress_means_the_same() -> None:
    """However it is compressed and cut into frames, or refused."""
    assert await send_all(FANOUT) == await send_all(STOCK)


async def test_what_clients_compress_means_the_same_over_tls(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """What is decrypted is as good as what was not encrypted."""
    assert await send_all(FANOUT, certificate) == await send_all(STOCK, certificate)


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
