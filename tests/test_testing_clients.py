"""What the clients of wshub.testing promise: those that behave, and those that do not."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import JSONResponse
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.managed import ManagedApp, echo, hold
from wshub.testing import (
    DeadClient,
    Frame,
    HalfOpenClient,
    Opcode,
    RawClient,
    StalledClient,
    connect,
    frame,
    live_server,
    refusal,
    until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


NO_CLOSE_FRAME = (1005, 1006)
"""What uvicorn's implementations call the end of a client that vanished."""


@asynccontextmanager
async def listening(
    *, answer: bytes = b""
) -> AsyncIterator[tuple[str, list[BaseException | None]]]:
    """A plain TCP server: it answers the first bytes, and notes how each connection ends."""
    ends: list[BaseException | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            if answer:
                writer.write(answer)
            else:
                await reader.read()
        except ConnectionResetError as error:
            ends.append(error)
        else:
            ends.append(None)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", ends


async def repeat(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step again and again, until it raises."""
    while True:
        await step()


# --- the client


async def test_a_client_says_and_hears(ws: str) -> None:
    """Text, bytes and JSON go both ways, and the close code and reason are the server's."""
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask(b"\x00\xff") == b"\x00\xff"
            await client.send_json({"type": "say", "text": "hé"})
            assert await client.receive_json() == {"type": "say", "text": "hé"}
            await managed.opened[0].close(4000, "enough")
            assert await client.closed() == (4000, "enough")
            with pytest.raises(ConnectionClosed):
                await client.receive()
        async with connect(f"{server.ws}/ws") as client:
            await client.close(4001, "gone home")
            await until(lambda: managed.opened[1].closed)
        closed = managed.opened[1].closed
        assert closed is not None
        assert (closed.code, closed.reason, closed.by) == (4001, "gone home", "peer")


async def test_a_client_waits_until_its_deadline() -> None:
    """Each wait says what it waited for."""
    managed = ManagedApp(hold)
    async with (
        live_server(managed.app) as server,
        connect(f"{server.ws}/ws", timeout=0.5) as client,
    ):
        with pytest.raises(TimeoutError, match=r"waited 0\.5 seconds for a message"):
            await client.receive()
        with pytest.raises(TimeoutError, match=r"waited 0\.5 seconds for the connection to end"):
            await client.closed()


async def test_a_client_that_cannot_send_or_close_fails_in_time() -> None:
    """A server that neither reads nor answers is noticed."""
    app, release = FastAPI(), asyncio.Event()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        await release.wait()

    async with live_server(app, ws="wsproto") as server:
        async with connect(server.ws, timeout=0.2, compression=None) as client:
            with pytest.raises(TimeoutError, match="for room to send"):
                await repeat(partial(client.send, "x" * 1_000_000))
            with pytest.raises(TimeoutError, match="for the server to close"):
                await client.close()
        release.set()


async def test_a_client_may_stop_reading(ws: str) -> None:
    """What comes waits in the server meanwhile; at the end of the block the client reads on."""
    managed = ManagedApp(hold)
    async with live_server(managed.app, ws=ws, send_buffer=4096) as server:
        async with connect(f"{server.ws}/ws", compression=None) as client:
            await until(lambda: managed.opened)
            (connection,) = managed.opened
            client.stop_reading()
            while not connection.outbox.messages:
                await connection.send("x" * 100_000)
            client.read_on()
            assert await client.receive() == "x" * 100_000
            await until(lambda: not connection.outbox.messages)
            client.stop_reading()
            started = time.monotonic()
        assert time.monotonic() - started < 5


async def test_a_client_may_vanish(ws: str) -> None:
    """The server sees a reset, without a close code."""
    managed = ManagedApp(hold)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            await until(lambda: managed.opened)
            client.reset()
            await until(lambda: managed.opened[0].closed)
            assert (await client.closed())[0] == 1006
            client.reset()
        closed = managed.opened[0].closed
        assert closed is not None
        assert closed.code in NO_CLOSE_FRAME
        assert closed.by == "peer"


async def test_a_client_that_vanishes_resets_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's transport is lost with an error, not at the end of a stream."""
    ends: list[Exception | None] = []
    lose = WebSocketsSansIOProtocol.connection_lost

    def note(protocol: WebSocketsSansIOProtocol, error: Exception | None) -> None:
        ends.append(error)
        lose(protocol, error)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "connection_lost", note)
    async with live_server(ManagedApp(hold).app) as server:
        async with connect(f"{server.ws}/ws") as client:
            client.reset()
        await until(lambda: ends)
    assert isinstance(ends[0], ConnectionResetError)


async def test_a_refusal_shows_the_whole_answer(ws: str) -> None:
    """Status, headers and body of a handshake that is refused; an accepted one is an error."""
    app = FastAPI()

    @app.websocket("/no")
    async def refuse(websocket: WebSocket) -> None:
        answer = JSONResponse({"detail": "log in"}, 401, {"WWW-Authenticate": "Bearer"})
        await websocket.send_denial_response(answer)

    @app.websocket("/yes")
    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    async with live_server(app, ws=ws) as server:
        refused = await refusal(f"{server.ws}/no")
        assert (refused.status, refused.json()) == (401, {"detail": "log in"})
        assert refused.headers["www-authenticate"] == "Bearer"
        with pytest.raises(InvalidStatus):
            await connect(f"{server.ws}/no").__aenter__()
        with pytest.raises(AssertionError, match=r"/yes was accepted"):
            await refusal(f"{server.ws}/yes")


# --- raw clients


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_001])
async def test_frames_go_both_ways(ws: str, size: int) -> None:
    """Each of the three forms of a frame's length is written, masked, and read."""
    managed = ManagedApp(echo)
    payload = bytes(range(256)) * (size // 256 + 1)
    async with (
        live_server(managed.app, ws=ws) as server,
        RawClient(f"{server.ws}/ws") as raw,
    ):
        await raw.send_frame(Opcode.BINARY, payload[:size])
        assert await raw.read_frame() == Frame(Opcode.BINARY, payload[:size], fin=True)


async def test_frames_may_be_anything() -> None:
    """A fragment, one without a mask, one with reserved bits: nothing is checked."""
    assert frame(Opcode.TEXT, b"ab", fin=False, mask=False) == b"\x01\x02ab"
    assert frame(3, mask=False, reserved=0b101) == b"\xd3\x00"
    first, second = frame(Opcode.TEXT, b"ab"), frame(Opcode.TEXT, b"ab")
    assert first[:2] == second[:2] == b"\x81\x82"
    assert first[2:] != second[2:]


# wsproto drops a client that breaks the protocol, without a close frame.
@pytest.mark.parametrize("ws", ["websockets-sansio", "websockets"])
async def test_a_raw_client_may_break_the_protocol(ws: str) -> None:
    """Whatever it sends arrives as it is: the server answers an unmasked frame with 1002."""
    managed = ManagedApp(hold)
    async with live_server(managed.app, ws=ws) as server, RawClient(f"{server.ws}/ws") as raw:
        await raw.send_frame(Opcode.PING, b"once")
        assert await raw.read_frame() == Frame(Opcode.PONG, b"once", fin=True)
        await raw.send_bytes(frame(Opcode.TEXT, b"bare", mask=False))
        answer = await raw.read_frame()
        assert (answer.opcode, answer.payload[:2]) == (Opcode.CLOSE, (1002).to_bytes(2))
        with pytest.raises(EOFError, match="the server closed the connection"):
            await raw.read_frame()


async def test_a_raw_client_sends_headers_and_a_query() -> None:
    """The handshake asks for the whole address, with the headers it is given."""
    app = FastAPI()

    @app.websocket("/ws")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{websocket.query_params['q']} {websocket.headers['x-token']}")

    async with (
        live_server(app) as server,
        RawClient(f"{server.ws}/ws?q=1", headers={"X-Token": "secret"}) as raw,
    ):
        assert (await raw.read_frame()).payload == b"1 secret"


async def test_a_raw_client_says_how_a_handshake_failed() -> None:
    """Refused, and closed without an answer, are both a ConnectionError."""
    async with live_server(FastAPI()) as server:
        with pytest.raises(ConnectionError, match=r"refused the handshake: HTTP/1\.1 403"):
            await RawClient(server.ws).__aenter__()
    async with listening(answer=b"HTTP/1.1 ") as (url, _):
        with pytest.raises(ConnectionError, match="closed the connection during the handshake"):
            await RawClient(url).__aenter__()


async def test_a_raw_client_waits_until_its_deadline() -> None:
    """For the answer, for bytes, and for room to write."""
    async with listening() as (url, _):
        with pytest.raises(TimeoutError, match="for the answer to the handshake"):
            await RawClient(url, timeout=0.05).__aenter__()
        async with RawClient(url, timeout=0.05, wait=False) as raw:
            with pytest.raises(TimeoutError, match="for 3 bytes"):
                await raw.read(3)
    app, release = FastAPI(), asyncio.Event()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        await release.wait()

    async with live_server(app, ws="wsproto") as server:
        async with RawClient(server.ws) as raw:
            raw._timeout = 0.1  # to connect may take longer on a busy machine
            with pytest.raises(TimeoutError, match="for the server to take bytes"):
                await repeat(partial(raw.send_bytes, frame(Opcode.BINARY, bytes(1_000_000))))
        release.set()


async def test_a_stalled_client_fills_the_servers_buffer(ws: str) -> None:
    """What it does not read stays in the server; when it reads after all, everything comes."""
    managed = ManagedApp(hold)
    async with (
        live_server(managed.app, ws=ws, send_buffer=4096) as server,
        StalledClient(f"{server.ws}/ws") as stalled,
    ):
        await until(lambda: managed.opened)
        (connection,) = managed.opened
        transport = next(iter(server.uvicorn.server_state.connections)).transport
        sent = 0
        while not connection.outbox.messages:
            await connection.send(b"x" * 1000)
            sent += 1
        assert transport.get_write_buffer_size() > 0
        assert sent < 100  # of which asyncio's own buffer takes 64
        for _ in range(sent):
            assert (await stalled.read_frame()).payload == b"x" * 1000
        await until(lambda: not transport.get_write_buffer_size())


async def test_a_dead_client_resets(ws: str) -> None:
    """Also at the end of its block; the handler sees that no close frame came."""
    managed = ManagedApp(hold)
    async with live_server(managed.app, ws=ws) as server:
        async with DeadClient(f"{server.ws}/ws") as dead, DeadClient(f"{server.ws}/ws"):
            await until(lambda: len(managed.opened) == 2)
            dead.die()
            dead.die()
        await until(lambda: all(connection.closed for connection in managed.opened))
        await until(lambda: server.connections == 0)
    ends = [connection.closed for connection in managed.opened]
    assert {end.code in NO_CLOSE_FRAME and end.by for end in ends if end} == {"peer"}


async def test_death_is_a_reset_on_the_wire() -> None:
    """Not an orderly end of the stream, which is what other raw clients leave with."""
    async with listening() as (url, ends):
        async with DeadClient(url, wait=False), RawClient(url, wait=False):
            pass
        await until(lambda: len(ends) == 2)
    assert {type(end) for end in ends} == {ConnectionResetError, type(None)}


async def test_a_half_open_client_answers_no_ping(ws: str) -> None:
    """The server's keepalive is what ends it: pings come, and no pong goes."""
    managed = ManagedApp(hold)
    async with (
        live_server(managed.app, ws=ws, ws_ping_interval=0.05, ws_ping_timeout=0.05) as server,
        HalfOpenClient(f"{server.ws}/ws") as gone,
    ):
        answers = [await gone.read_frame()]
        while answers[-1].opcode != Opcode.CLOSE:
            answers.append(await gone.read_frame())
        assert {answer.opcode for answer in answers[:-1]} == {Opcode.PING}
        assert answers[-1].payload[:2] == (1011).to_bytes(2)


async def test_a_half_open_client_may_end_its_side(ws: str) -> None:
    """The server reads to the end of the stream, and lets go."""
    managed = ManagedApp(hold)
    async with live_server(managed.app, ws=ws) as server, HalfOpenClient(f"{server.ws}/ws") as gone:
        await until(lambda: managed.opened)
        gone.shut()
        await until(lambda: managed.opened[0].closed)
        await until(lambda: server.connections == 0)
    closed = managed.opened[0].closed
    assert closed is not None
    assert closed.code in NO_CLOSE_FRAME
