"""Transports, descriptors and event loops that end while frames are on their way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.managed import ManagedApp
from tests.uvicorn.bait import Bait
from tests.uvicorn.fanout import SEND_BUFFER, block, descriptor_of, opened, serve
from tests.uvicorn.wires import Network
from wshub import ConnectionManager, OutboxOptions
from wshub.testing import DeadClient, Opcode, connect, until
from wshub.uvicorn._sink import UvicornSink

if TYPE_CHECKING:
    from wshub import Connection
    from wshub.testing import FakeClock, LiveServer

ROOT = Path(__file__).parents[2]


async def hold(connection: Connection) -> None:
    """Receive nothing until the end."""
    assert [message async for message in connection] == []


# --- descriptors: the number of a socket that was closed is soon that of another


class Crowd:
    """
    Clients that come and go in every way.

    Attributes:
        managed: The app that they connect to.
        strays: What was written to something that is no connection.
        frames: How many broadcasts were written.
    """

    WAYS = ("dies", "closes", "lies", "leaves", "is aborted", "is closed", "stalls")

    def __init__(self, server: LiveServer, managed: ManagedApp) -> None:
        self._server = server
        self._chance = random.Random(7)  # noqa: S311  (the same in each run)
        self._clients: list[asyncio.Task[None]] = []
        self._write = os.write
        self.managed = managed
        self.strays: list[bytes] = []
        self.frames = 0

    def write(self, descriptor: int, data: bytes) -> int:
        """Do as `os.write()`, and look who gets frames with text."""
        if data[:1] == b"\x81":
            self.frames += 1
            connected = self._server.uvicorn.server_state.connections
            sockets = [each.transport.get_extra_info("socket") for each in connected]
            self.strays.extend([data] * (descriptor not in [each.fileno() for each in sockets]))
        return self._write(descriptor, data)

    @property
    def present(self) -> int:
        """How many are there."""
        return sum(not client.done() for client in self._clients)

    @property
    def errors(self) -> list[BaseException]:
        """What went wrong with those who were there."""
        return [error for client in self._clients if (error := client.exception())]

    def let_one_in(self) -> None:
        """Start another client."""
        way = self.WAYS[len(self._clients) % len(self.WAYS)]
        self._clients.append(asyncio.create_task(self._come_and_go(way)))

    async def _come_and_go(self, way: str) -> None:
        # Others may have it aborted, or closed, before.
        with suppress(EOFError, ConnectionError):
            async with DeadClient(f"{self._server.ws}/ws") as client:
                for _ in range(self._chance.randrange(4)):
                    if (await client.read_frame()).opcode == Opcode.CLOSE:
                        return
                await self._go(client, way)

    async def _go(self, client: DeadClient, way: str) -> None:
        if way == "dies":
            client.die()
        elif way == "closes":
            await client.send_frame(Opcode.CLOSE, (1000).to_bytes(2))
        elif way == "lies":
            await client.send_bytes(b"\xff\xff")
        elif way == "leaves":
            client.socket.close()
        elif way == "stalls":
            await asyncio.sleep(0.05)
        else:
            connection = self._chance.choice(self.managed.opened)
            if way == "is closed":
                await connection.close(4000)
            connection.abort()


@pytest.mark.timeout(120)
async def test_a_frame_never_reaches_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Clients come and vanish in every way while everyone is written to in every turn.

    Whatever takes the place of a socket gets nothing that was meant for it.
    """
    bait, managed = Bait(), ManagedApp(hold)
    manager = managed.manager
    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        crowd = Crowd(server, managed)
        monkeypatch.setattr(os, "write", crowd.write)
        for number in range(800):
            if crowd.present < 20:
                crowd.let_one_in()
                bait.lay(1)
            await manager.broadcast(f"{number}")
            if number % 3:
                await asyncio.sleep(0)
            if number % 100 == 0:
                assert bait.took() == []
        while crowd.present:
            await manager.broadcast("more")
            await asyncio.sleep(0.001)
        await until(lambda: not server.connections)
    monkeypatch.undo()
    assert bait.took() == []
    assert crowd.strays == []
    assert crowd.errors == []
    assert crowd.frames > 800
    assert manager.statistics().queued == 0


# --- event loops


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("first", ["connects", "broadcasts"])
def test_a_manager_goes_on_in_another_loop(loop: str, first: str) -> None:
    """What the first loop left behind when it was closed is dropped, and written nowhere."""
    command = [sys.executable, "-m", "tests.uvicorn.two_loops", loop, first]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == {
        "got": ["0", "1", "2"],
        "written to others": [],
        "connections": 1,
        "sent": 3,
        "queued": 0,
        "dropped": {"overflow": 0, "closed": 6 if first == "broadcasts" else 4},
    }


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """A certificate with its key, and what a client needs to trust it."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path), context


@pytest.mark.parametrize("end", ["closes", "is closed", "is aborted", "stops reading", "is reset"])
async def test_it_ends_over_tls_as_without(
    end: str,
    certificate: tuple[str, ssl.SSLContext],
    fake_clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is written past what encrypts, and a transport that has ended is left alone."""
    managed = ManagedApp(hold, ConnectionManager(clock=fake_clock))
    path, context = certificate
    async with serve(managed, ssl_certfile=path) as server:
        url = f"wss://localhost:{server.port}/ws"
        async with connect(url, ssl=context, compression=None, max_size=None) as client:
            (connection,) = await opened(managed)
            await managed.manager.broadcast("hello")
            assert await client.receive() == "hello"
            assert descriptor_of(connection) == -1
            if end == "closes":
                await client.close(4000)
            elif end == "is closed":
                await connection.close(4000)
                assert (await client.closed())[0] == 4000
            elif end == "is aborted":
                connection.abort()
            elif end == "is reset":
                client.reset()
            else:
                client.stop_reading()
                await block(connection, "x" * 5_000_000)
                closing = asyncio.create_task(connection.close(4000))
                await fake_clock.advance(10)
                await closing
            await until(lambda: managed.outcomes == [None])
            await until(lambda: not server.connections)
            connection.abort()
            await fake_clock.advance(20)
        await managed.manager.drain(timeout=5)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    figures = managed.manager.statistics()
    assert (figures.queued, figures.dropped["closed"]) == (0, end == "stops reading")


async def test_a_message_over_tls_may_be_longer_than_what_the_transport_takes(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """What is put meanwhile waits, and comes in order."""
    managed = ManagedApp(hold)
    path, context = certificate
    async with serve(managed, ssl_certfile=path) as server:
        url = f"wss://localhost:{server.port}/ws"
        async with connect(url, ssl=context, compression=None, max_size=None) as client:
            (connection,) = await opened(managed)
            client.stop_reading()
            await block(connection, "x" * 5_000_000)
            blocked = managed.manager.statistics().sent + 1
            for number in range(10):
                await managed.manager.broadcast(f"{number}")
            assert connection.outbox.messages == 11
            client.read_on()
            for _ in range(blocked):
                assert len(await client.receive()) == 5_000_000
            assert [await client.receive() for _ in range(10)] == [f"{n}" for n in range(10)]
        await until(lambda: not server.connections)
    assert managed.manager.statistics().sent == blocked + 10


# --- transports that fail as they are written to


class Failing:
    """
    A transport, and the protocol around it, whose peer turns out to be gone.

    Attributes:
        closing: Whether that has shown.
    """

    def __init__(self, *, closing: bool) -> None:
        self.transport = self
        self.closing = closing

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 1

    def write(self, data: bytes) -> None:
        self.closing = bool(data)


@pytest.mark.parametrize("closing", [False, True])
def test_what_a_dying_transport_was_given_is_not_sent(*, closing: bool) -> None:
    """Whether it is closed already, or fails on this very write."""
    sink = UvicornSink(Failing(closing=closing))  # type: ignore[arg-type]
    with pytest.raises(ConnectionResetError):
        sink.write(b"frame")
    assert sink.is_closing


def test_what_cannot_be_poured_is_dropped() -> None:
    """By a transport that is closed; nothing waits any longer."""
    network = Network(OutboxOptions(), 1)
    (peer,) = network.peers

    async def pour() -> None:
        peer.wire.room = 0
        for _ in range(3):
            network.put(peer)
        peer.outbox.flush()
        assert peer.outbox.messages == 3
        peer.wire.is_lost = True
        peer.outbox.pour()

    with network.connected():
        asyncio.run(pour())
    figures = network.counters
    assert (figures.dropped["closed"], figures.queued, figures.sent) == (3, 0, 0)


async def test_what_is_poured_may_leave_at_once() -> None:
    """The transport has just written what blocked."""
    network = Network(OutboxOptions(), 1)
    (peer,) = network.peers
    with network.connected():
        peer.wire.room = 0
        for _ in range(3):
            network.put(peer)
        peer.outbox.flush()
        peer.wire.give_room(None)
        peer.outbox.pour()
        assert peer.wire.messages == [1, 2, 3]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (network.counters.sent, network.counters.queued) == (3, 0)
