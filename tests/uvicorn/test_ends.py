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
from wshub import ConnectionManager
from wshub.testing import DeadClient, Opcode, connect, until

if TYPE_CHECKING:
    from wshub import Connection
    from wshub.testing import FakeClock

ROOT = Path(__file__).parents[2]


async def hold(connection: Connection) -> None:
    """Receive until the end."""
    async for _ in connection:
        pass


# --- descriptors: the number of a socket that was closed is soon that of another


WAYS = ("dies", "closes", "lies", "leaves", "is aborted", "is closed", "stalls")


@pytest.mark.timeout(120)
async def test_a_frame_never_reaches_another_socket(  # noqa: C901, PLR0915  (one scene)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Clients come and vanish in every way while everyone is written to in every turn.

    Whatever takes the place of a socket gets nothing that was meant for it.
    """
    chance, bait, write = random.Random(7), Bait(), os.write  # noqa: S311  (the same every time)
    managed = ManagedApp(hold)
    manager = managed.manager
    strays: list[bytes] = []
    frames = 0

    def check(descriptor: int, data: bytes) -> int:
        nonlocal frames
        if data[:1] == b"\x81":
            frames += 1
            connected = server.uvicorn.server_state.connections
            sockets = [each.transport.get_extra_info("socket") for each in connected]
            if descriptor not in [each.fileno() for each in sockets]:
                strays.append(data)
        return write(descriptor, data)

    async def come_and_go(way: str) -> None:
        bait.lay(1)
        # Others may have it aborted, or closed, before.
        with suppress(EOFError, ConnectionError):
            await go(way)

    async def go(way: str) -> None:
        async with DeadClient(f"{server.ws}/ws") as client:
            for _ in range(chance.randrange(4)):
                if (await client.read_frame()).opcode == Opcode.CLOSE:
                    return
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
            elif managed.opened:
                connection = chance.choice(managed.opened)
                if way == "is aborted":
                    connection.abort()
                else:
                    await connection.close(4000)

    async with serve(managed, send_buffer=SEND_BUFFER) as server:
        monkeypatch.setattr(os, "write", check)
        clients: list[asyncio.Task[None]] = []
        for number in range(800):
            if sum(not client.done() for client in clients) < 20:
                clients.append(asyncio.create_task(come_and_go(WAYS[number % len(WAYS)])))
            await manager.broadcast(f"{number}")
            if number % 3:
                await asyncio.sleep(0)
            if number % 100 == 0:
                assert bait.took() == []
            managed.opened = [one for one in managed.opened if one.closed is None]
        while not all(client.done() for client in clients):
            await manager.broadcast("more")
            await asyncio.sleep(0.001)
        await until(lambda: not server.connections)
    monkeypatch.undo()
    assert bait.took() == []
    assert strays == []
    assert [client.exception() for client in clients if client.exception()] == []
    assert frames > 500
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
