"""Clients that want to do harm: the server stays up, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import WebSocket  # noqa: TC002  (FastAPI reads the annotation)

from tests.managed import ManagedApp, echo
from wshub import Connection, ConnectionManager, OutboxOptions
from wshub.testing import (
    Frame,
    LiveServer,
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
    from collections.abc import AsyncIterator

    from wshub.testing import Client, FakeClock

LATENCY = 5.0
"""Seconds in which a bystander has its answer; without an attack it takes a millisecond."""

SERVER_LIMIT = 20_000
"""Bytes that the servers of these tests take in one message."""


class Scene:
    """
    A server under attack, and a bystander that talks to it all the time.

    Attributes:
        server: The server, whose first connection is the bystander's.
        managed: The app, with handlers that echo unless it is told otherwise.
        manager: Its manager.
        waits: Seconds that the bystander waited for each of its answers.
    """

    def __init__(self, server: LiveServer, managed: ManagedApp, caplog: Any) -> None:
        self.server = server
        self.managed = managed
        self.manager = managed.manager
        self.waits: list[float] = []
        self._caplog = caplog

    @property
    def url(self) -> str:
        return f"{self.server.ws}/ws"

    async def talk(self, client: Client) -> None:
        """Ask for an echo again and again, until cancelled."""
        while True:
            asked = time.monotonic()
            assert await client.ask("still there?") == "still there?"
            self.waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.002)

    async def let_time_pass(self, clock: FakeClock, seconds: float) -> None:
        """Let time pass for all but the bystander, which says something every second of it."""
        for _ in range(round(seconds)):
            said = len(self.waits)
            await until(lambda: len(self.waits) > said)  # noqa: B023
            await clock.advance(1)

    async def is_over(self, attackers: int = 1) -> None:
        """Check that so many attackers have gone, with a line in the log each at most."""
        await until(lambda: self.managed.outcomes == [None] * attackers)
        await until(lambda: self.server.connections == 1)
        assert self.manager.statistics().connections == 1
        assert self.manager.statistics().queued == 0
        self.check_log(attackers)

    def check_log(self, lines: int) -> None:
        """Check that at most so many lines were logged, without a traceback."""
        records = [record for record in self._caplog.records if record.name == "wshub"]
        assert len(records) <= lines
        for record in records:
            assert record.exc_info is None
            assert len(record.getMessage().splitlines()) == 1


@pytest.fixture
def attack(ws: str, caplog: pytest.LogCaptureFixture) -> Any:
    """What serves an app, with a bystander, for the length of a block."""
    caplog.set_level(logging.WARNING, logger="wshub")

    @asynccontextmanager
    async def attack(managed: ManagedApp | None = None, **options: Any) -> AsyncIterator[Scene]:
        managed = managed or ManagedApp(echo)
        async with (
            live_server(managed.app, ws=ws, ws_max_size=SERVER_LIMIT, **options) as server,
            connect(f"{server.ws}/ws?user=bystander") as client,
        ):
            await until(lambda: managed.opened)
            scene = Scene(server, managed, caplog)
            async with asyncio.TaskGroup() as group:
                talking = group.create_task(scene.talk(client))
                yield scene
                await until(lambda: len(scene.waits) > 2)
                talking.cancel()
            assert max(scene.waits) < LATENCY

    return attack


async def read_to_the_end(raw: RawClient) -> list[Frame]:
    """Return the frames that the server sends before it closes the connection."""
    frames: list[Frame] = []
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            frames.append(await raw.read_frame())
    return frames


async def send_for_ever(raw: RawClient, data: bytes) -> None:
    """Send `data` again and again. Raises ConnectionError at the end."""
    while True:
        await raw.send_bytes(data)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2) + reason)


def header(length: int) -> bytes:
    """The beginning of a text frame that promises so many bytes."""
    return bytes([0x81, 0xFF]) + length.to_bytes(8) + b"mask"


MALFORMED = {
    "close with 1005": close_frame(1005),
    "close with 999": close_frame(999),
    "close with 5000": close_frame(5000),
    "close with half a code": frame(Opcode.CLOSE, b"\x03"),
    "a reason that is not UTF-8": close_frame(1000, b"\xff\xfe"),
    "text that is not UTF-8": frame(Opcode.TEXT, b"\xff\xfe"),
    "text that ends within a character": frame(Opcode.TEXT, "é".encode()[:1]),
    "a character broken over two fragments": (
        frame(Opcode.TEXT, b"caf\xc3", fin=False) + frame(Opcode.CONTINUATION, b"\x28")
    ),
    "unmasked": frame(Opcode.TEXT, b"hello", mask=False),
    "a reserved bit": frame(Opcode.TEXT, b"hello", reserved=2),
    "compressed without an agreement": frame(Opcode.TEXT, b"hello", reserved=4),
    "a reserved opcode": frame(3, b"hello"),
    "a reserved control opcode": frame(11),
    "a ping of 126 bytes": frame(Opcode.PING, b"x" * 126),
    "half a ping": frame(Opcode.PING, fin=False),
    "a continuation of nothing": frame(Opcode.CONTINUATION, b"hello"),
    "a message within a message": frame(Opcode.TEXT, b"one", fin=False)
    + frame(Opcode.TEXT, b"two"),
    "2^62 bytes promised": header(1 << 62) + b"x" * 2 * SERVER_LIMIT,
    "2^63 bytes promised": header(1 << 63),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "everything": bytes(range(256)) * 100,
}


async def test_malformed_frames(attack: Any, ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server closes it with the code that fits, and the handler's loop simply ends."""
    async with attack() as scene:
        for number, (name, data) in enumerate(MALFORMED.items()):
            async with RawClient(scene.url) as raw:
                with contextlib.suppress(ConnectionError):
                    await raw.send_bytes(data)
                frames = await read_to_the_end(raw)
            # wsproto closes the connection without a word.
            assert all(frame.opcode == Opcode.CLOSE for frame in frames), name
            codes = [int.from_bytes(frame.payload[:2]) for frame in frames]
            assert codes in ([], [1002], [1007], [1009]), name
            assert codes or ws == "wsproto", name
            await until(lambda: len(scene.managed.outcomes) == number + 1)  # noqa: B023
        await scene.is_over(len(MALFORMED))
        closed = [connection.closed for connection in scene.managed.opened[1:]]
        assert {end.code for end in closed} <= {1002, 1006, 1007, 1009}
        assert {end.by for end in closed} == {"peer"}
    logged = {record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR}
    # Not ours to change: uvicorn's default implementation logs this as an error.
    assert logged == ({"Invalid UTF-8 sequence received from client."} if "sansio" in ws else set())


async def test_ten_thousand_messages_at_once(attack: Any) -> None:
    """All of them are taken, in order, and nobody else waits until they are."""

    async def count(connection: Connection) -> None:
        if connection.user == "bystander":
            await echo(connection)
        for number in range(10_000):
            assert await connection.receive() == str(number)
        await connection.send("all there")

    async with attack(ManagedApp(count)) as scene:
        async with RawClient(scene.url) as raw:
            await raw.send_bytes(messages(10_000, mask=True))
            assert (await raw.read_frame()).payload == b"all there"
        await scene.is_over()


async def test_messages_that_nobody_takes(attack: Any) -> None:
    """Only `read_ahead` of them are read until the handler goes on; then it gets them all."""
    release = asyncio.Event()

    async def wait_and_echo(connection: Connection) -> None:
        if connection.user != "bystander":
            await release.wait()
        await echo(connection)

    managed = ManagedApp(wait_and_echo, ConnectionManager(read_ahead=16))
    async with attack(managed) as scene:
        async with RawClient(scene.url) as raw:
            await raw.send_bytes(messages(1000, mask=True))
            await until(lambda: len(managed.opened) == 2)
            await until(lambda: managed.opened[1]._link.is_behind)
            figures = scene.manager.statistics()
            assert figures.received - figures.sent <= 16 + 2
            release.set()
            answers = messages(1000, mask=False)
            assert await raw.read(len(answers)) == answers
        await scene.is_over()


def messages(count: int, *, mask: bool) -> bytes:
    """Return so many short messages in a row."""
    return b"".join(frame(Opcode.TEXT, b"%d" % number, mask=mask) for number in range(count))


async def test_answers_that_are_never_read(attack: Any) -> None:
    """A client that sends for ever and reads nothing is cut off; what it sent is not piled up."""
    options = OutboxOptions(max_messages=100, send_timeout=0.3)
    manager = ConnectionManager(outbox=options, read_ahead=16)
    async with attack(ManagedApp(echo, manager)) as scene:
        async with StalledClient(scene.url) as stalled:
            flood = asyncio.create_task(send_for_ever(stalled, frame(Opcode.BINARY, b"x" * 10_000)))
            piles: list[int] = []

            def is_cut_off() -> int:
                figures = manager.statistics()
                piles.append(figures.received - figures.unread - figures.sent)
                return sum(figures.evicted.values())

            await until(is_cut_off)
            assert manager.statistics().evicted["send_timeout"] == 1
            assert max(piles) <= 1 + 100 + 1 + 16 + 2
            with pytest.raises(ConnectionError):
                await flood
        await scene.is_over()


async def test_a_message_that_never_ends(attack: Any) -> None:
    """Fragment after fragment is held up to the server's limit, then it closes with 1009."""
    async with attack() as scene:
        async with RawClient(scene.url) as raw:
            await raw.send_frame(Opcode.TEXT, b"x", fin=False)
            with contextlib.suppress(ConnectionError):
                for _ in range(30):
                    await raw.send_frame(Opcode.CONTINUATION, b"x" * 1000, fin=False)
            await read_to_the_end(raw)
        await scene.is_over()
        (_, closed) = [connection.closed for connection in scene.managed.opened]
        assert closed.code in {1006, 1009}
        assert scene.manager.statistics().received > 0


@pytest.mark.parametrize(
    "data",
    [b"", frame(Opcode.CONTINUATION, fin=False) * 5000, frame(Opcode.PONG) * 5000],
    ids=["silence", "empty fragments", "pongs"],
)
async def test_what_is_no_message_does_not_count(
    attack: Any, ws: str, data: bytes, fake_clock: FakeClock
) -> None:
    """Who sends anything but whole messages is idle, and closed with 3008."""
    manager = ConnectionManager(idle_timeout=5, clock=fake_clock)
    async with attack(ManagedApp(echo, manager)) as scene:
        async with RawClient(scene.url) as raw:
            await raw.send_frame(Opcode.TEXT, b"begins", fin=False)
            await raw.send_bytes(data)
            await scene.let_time_pass(fake_clock, 6)
            closed = await raw.read_frame()
            too_many = ws == "websockets" and closed.payload == b"\x03\xf1too many fragments"
            assert too_many or closed == Frame(Opcode.CLOSE, b"\x0b\xc0idle", fin=True)
        await scene.is_over()


@pytest.mark.parametrize("found", ["idle", "unwritable"])
async def test_answers_to_pings_that_are_never_read(
    attack: Any, found: str, fake_clock: FakeClock
) -> None:
    """The server's pongs pile up until the client is idle, or sent to; then it is dropped."""
    manager = ConnectionManager(idle_timeout=5, clock=fake_clock)
    async with (
        attack(ManagedApp(echo, manager), send_buffer=4096) as scene,
        StalledClient(scene.url) as stalled,
    ):
        await stalled.send_bytes(frame(Opcode.PING, b"x" * 125) * 10_000)
        await until(lambda: scene.managed.opened[1]._link._sink.unsent_bytes)
        if found == "unwritable":
            await manager.broadcast("x" * 100_000, exclude=manager.active_connections[:1])
            await scene.let_time_pass(fake_clock, 4)
        await scene.let_time_pass(fake_clock, 7)
        await until(lambda: manager.statistics().connections == 1)
        await scene.let_time_pass(fake_clock, 11)
        await scene.is_over()


@pytest.mark.parametrize("begin", [b"", b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: webs"])
async def test_handshakes_that_never_end(attack: Any, begin: bytes) -> None:
    """They reach no handler; the server takes on others, and stops when it is told to."""
    async with attack() as scene, AsyncExitStack() as stack:
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", scene.server.port)
            stack.callback(writer.close)
            writer.write(begin)
        await until(lambda: scene.server.connections == 51)
        async with connect(scene.url) as client:
            assert await client.ask("room for me?") == "room for me?"
        assert len(scene.managed.opened) == 2


BAD_NAMES = ["%00", "%0d%0aSet-Cookie:%20x", "%1b%5b2J", "%c2%9f", "a%0aWARNING:%20forged"]
"""Room names that would clear a screen or forge a line of a log, as they come in an address."""


async def test_names_full_of_control_characters(
    attack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A room named after the client's path or query is refused, and logged by nobody as it is."""
    caplog.set_level(logging.INFO)
    managed = ManagedApp(echo)

    @managed.app.websocket("/rooms/{room:path}")
    async def enter(websocket: WebSocket, room: str) -> None:
        async with managed.manager.connection(websocket, rooms=[room]) as connection:
            await echo(connection)

    async with attack(managed) as scene:
        places = ("/rooms/{}", "/ws?room={}", "/ws?user={}")
        targets = [place.format(name) for place in places for name in BAD_NAMES]
        for target in targets:
            assert (await refusal(scene.server.ws + target)).status == 403
        assert scene.manager.statistics().opened == 1
        assert scene.manager.statistics().rooms == 0
        scene.check_log(0)
        lines = [line for record in caplog.records if '" 403' in (line := record.getMessage())]
        assert len(lines) == len(targets)
        assert all(map(str.isprintable, lines))
        async with connect(f"{scene.server.ws}/rooms/tea") as client:
            assert await client.ask("a good name") == "a good name"
