"""Transports, descriptors and event loops that end while frames are on their way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.managed import ManagedApp
from tests.uvicorn.bait import Bait
from tests.uvicorn.fanout import (
    SEND_BUFFER,
    serve,
)
from wshub import Connection
from wshub.testing import DeadClient, Opcode, until

ROOT = Path(__file__).parents[2]


async def hold(connection: Connection) -> None:
    """Receive until the end."""
    async for _ in connection:
        pass


# --- descriptors: the number of a socket that was closed is soon that of another


WAYS = ("dies", "closes", "lies", "leaves", "is aborted", "is closed", "stalls")


@pytest.mark.timeout(120)
async def test_a_frame_never_reaches_another_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Clients come and vanish in every way while everyone is written to in every turn.

    Whatever takes the place of a socket gets nothing that was meant for it.
    """
    chance, bait, write = random.Random(7), Bait(), os.write
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
    assert frames > 2000
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
