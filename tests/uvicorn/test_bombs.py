"""Much that comes compressed into little: what it costs, and when it is refused."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi import FastAPI, WebSocket

from tests.managed import Late, ManagedApp
from tests.uvicorn.wire import COMPRESSED, code_of, deflate, frames_of, open_wire
from tests.uvicorn.witness import ECHOES, FANOUT, Witness
from wshub import ConnectionManager, OutboxOptions
from wshub.testing import LiveServer, Opcode, RawClient, frame, live_server, until
from wshub.uvicorn import FanoutProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wshub import Connection

CONT, TEXT, BINARY, CLOSE, PING, PONG = Opcode

OFFER = "permessage-deflate"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)

MIB = 1024 * 1024
BIG = 64 * MIB
LIMITED: dict[str, Any] = {"ws_max_size": MIB}
BOMBS = 100
BOMB = frame(BINARY, deflate(bytes(MIB)), reserved=COMPRESSED)
"""A message of the limit, a thousandth as long."""

FEW = 16 * MIB
"""What is more than one slice that was read, inflated, and what is read ahead."""


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """What tells the most bytes that were allocated at a time since the last time, above now."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]

        def peak() -> int:
            nonlocal before
            most = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            return most

        yield peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", ECHOES)
@pytest.mark.parametrize("fragments", [1, 3])
async def test_a_bomb_is_refused_before_it_is_inflated(
    path: str, fragments: int, traced: Callable[[], int]
) -> None:
    """1009, and no more memory than the limit takes."""
    bomb = deflate(bytes(BIG))
    size = len(bomb) // fragments + 1
    parts = [bomb[start : start + size] for start in range(0, len(bomb), size)]
    sent = b"".join(
        frame(
            CONT if number else TEXT,
            part,
            fin=number == fragments - 1,
            reserved=0 if number else COMPRESSED,
        )
        for number, part in enumerate(parts)
    )
    witness = Witness()
    async with (
        live_server(witness.app, ws=FANOUT, **LIMITED) as server,
        open_wire(server.ws + path, {"Sec-WebSocket-Extensions": OFFER}) as wire,
    ):
        traced()
        await wire.send(sent)
        await wire.read_frames(1)
        assert traced() < FEW
        ((found, _),) = frames_of(wire.received)
        assert found.opcode == CLOSE
        assert code_of(found.payload) == 1009
        await until(lambda: witness.saw)
    ((code, _),) = cast("list[tuple[int, str]]", witness.saw[0])
    assert code == 1009


async def test_many_bombs_in_a_row_are_inflated_as_they_are_taken(
    traced: Callable[[], int],
) -> None:
    """A handler that is busy holds up all but a few of them, and gets them all in the end."""
    release, sizes = asyncio.Event(), list[int]()

    async def be_busy(connection: Connection) -> None:
        await release.wait()
        async for message in connection:
            sizes.append(len(message))

    managed = ManagedApp(be_busy)
    async with (
        live_server(managed.app, ws=FANOUT, **LIMITED) as server,
        open_wire(f"{server.ws}/ws?", {"Sec-WebSocket-Extensions": OFFER}) as wire,
    ):
        await until(lambda: managed.opened)
        traced()
        await wire.send(BOMB * BOMBS + frame(PING))
        await until(lambda: protocol_of(server).read_paused)
        assert managed.manager.statistics().received < 10
        release.set()
        await wire.read_frames(1)
        await until(lambda: len(sizes) == BOMBS)
        assert traced() < FEW
    assert sizes == [MIB] * BOMBS


@pytest.mark.parametrize("managed", [True, False])
async def test_bombs_that_come_before_they_are_wanted(
    managed: bool,  # noqa: FBT001
    traced: Callable[[], int],
) -> None:
    """The same while the app has not accepted, has no manager yet, and where it never has one."""
    asked, accept, begin = asyncio.Event(), asyncio.Event(), asyncio.Event()
    app, manager, sizes = FastAPI(), ConnectionManager(), list[int]()

    @app.websocket("/ws")
    async def handle(websocket: WebSocket) -> None:
        asked.set()
        await accept.wait()
        await websocket.accept()
        await begin.wait()
        if managed:
            async with manager.connection(websocket) as connection:
                async for message in connection:
                    sizes.append(len(message))
        else:
            async for data in websocket.iter_bytes():
                sizes.append(len(data))

    async with (
        live_server(app, ws=FANOUT, **LIMITED) as server,
        open_wire(f"{server.ws}/ws?", {"Sec-WebSocket-Extensions": OFFER}, wait=False) as wire,
    ):
        await until(asked.is_set)
        traced()
        await wire.send(BOMB * BOMBS + frame(PING))
        await until(lambda: protocol_of(server).read_paused)
        accept.set()
        await wire.hear()
        begin.set()
        await wire.read_frames(1)
        await until(lambda: len(sizes) == BOMBS)
        assert traced() < FEW
    assert sizes == [MIB] * BOMBS


def protocol_of(server: LiveServer) -> Any:
    """Return the one WebSocket that is connected, as the server sees it."""
    connections = server.uvicorn.server_state.connections
    (protocol,) = (found for found in connections if isinstance(found, FanoutProtocol))
    return protocol


@pytest.mark.parametrize("managed", [True, False])
async def test_little_is_inflated_ahead(*, managed: bool) -> None:
    """One read of compressed messages is thousands of them; taken apart are a few at a time."""
    app, gate = Late(read_ahead=4, outbox=OutboxOptions(max_bytes=100_000)), asyncio.Event()
    got: list[str | bytes] = []

    async def receive_late(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await gate.wait()
        got.extend([(await receive())["text"] for _ in range(400)])

    bomb = frame(TEXT, deflate(b"x" * 50_000), reserved=COMPRESSED)
    target = app.managed.app if managed else receive_late
    async with (
        live_server(target, ws=FANOUT, lifespan="off") as server,
        RawClient(f"{server.ws}/ws", headers={"Sec-WebSocket-Extensions": OFFER}) as client,
    ):
        await until(lambda: server.connections == 1)
        protocol = protocol_of(server)
        await client.send_bytes(bomb * 400)
        await until(lambda: protocol.read_paused)
        await asyncio.sleep(0.01)
        waiting = len(protocol._backlog) if managed else protocol.queue.qsize()
        assert waiting <= 4096 // len(bomb) + 1
        assert app.manager.statistics().received <= 4
        gate.set()
        app.receive(400)
        got = app.got if managed else got
        await until(lambda: len(got) == 400)
        assert got == ["x" * 50_000] * 400


async def test_a_bomb_with_the_end_of_tls_behind_it(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """The end is told though reading has stopped; of what is before it little is inflated."""
    path, context = certificate
    leave = asyncio.Event()

    async def be_busy(connection: Connection) -> None:
        await leave.wait()

    managed = ManagedApp(be_busy, ConnectionManager(outbox=OutboxOptions(max_bytes=MIB)))
    options = {"ssl_certfile": path, **LIMITED}
    async with live_server(managed.app, ws=FANOUT, **options) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        async def converse(step: Callable[[], object]) -> None:
            while True:
                try:
                    step()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
                else:
                    writer.write(outgoing.read())
                    return

        await converse(tls.do_handshake)
        tls.write(HANDSHAKE)
        await converse(lambda: tls.read(4096))
        await until(lambda: managed.opened)
        tls.write(BOMB * 40)
        with suppress(ssl.SSLWantReadError):
            tls.unwrap()
        writer.write(outgoing.read())  # all of it in one read of the server
        await until(lambda: managed.opened[0].closed)
        received = managed.manager.statistics().received
        assert 1 <= received <= 8
        leave.set()
        await until(lambda: managed.outcomes == [None])
        writer.close()
