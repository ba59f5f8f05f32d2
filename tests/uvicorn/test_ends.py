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
from typing import TYPE_CHECKING

import pytest

from tests.managed import ManagedApp, hear_nothing
from tests.uvicorn.bait import Bait
from tests.uvicorn.fanout import SEND_BUFFER, serve
from tests.uvicorn.wires import Network
from wshub import OutboxOptions
from wshub.testing import DeadClient, Opcode, until
from wshub.uvicorn._sink import UvicornSink

if TYPE_CHECKING:
    from wshub.testing import LiveServer

ROOT = Path(__file__).parents[2]


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
        is_text = data[:1] == b"\x81"
        self.frames += is_text
        connected = self._server.uvicorn.server_state.connections
        sockets = [each.transport.get_extra_info("socket") for each in connected]
        is_stray = is_text and descriptor not in [each.fileno() for each in sockets]
        self.strays.extend([data] * is_stray)
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
                    frame = await client.read_frame()
                    if frame.opcode == Opcode.CLOSE:  # pragma: no cover  (a matter of chance)
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
    bait, managed = Bait(), ManagedApp(hear_nothing)
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
