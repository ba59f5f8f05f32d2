"""Servers with the frame sink, and what tests of it look at."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from wshub.testing import Opcode, StalledClient, frame, live_server, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tests.managed import ManagedApp
    from wshub import Connection
    from wshub.testing import Frame, LiveServer, RawClient

FANOUT = "wshub.uvicorn:FanoutProtocol"

SEND_BUFFER = 4096
"""Bytes that the system takes from the server for a client that does not read."""

BLOCK = "x" * 100_000
"""More than the small buffers of these tests take."""


def serve(managed: ManagedApp, **options: Any) -> LiveServer:
    """Serve `managed` with the frame sink."""
    return live_server(managed.app, ws=FANOUT, **options)


def protocol_of(server: LiveServer) -> Any:
    """Return the protocol of the only WebSocket connection."""
    (protocol,) = server.uvicorn.server_state.connections
    return protocol


def descriptor_of(connection: Connection) -> int:
    """Return where frames may be written past the transport; negative: nowhere."""
    descriptor: int = connection.outbox.descriptor  # type: ignore[attr-defined]
    return descriptor


def held_by(connection: Connection) -> int:
    """Return the bytes that the transport holds."""
    return connection._link._sink.unsent_bytes


async def opened(managed: ManagedApp, count: int = 1) -> list[Connection]:
    """Return the connections once there are so many."""
    await until(lambda: len(managed.opened) == count)
    return managed.opened


@asynccontextmanager
async def stalling(
    managed: ManagedApp, **options: Any
) -> AsyncGenerator[tuple[LiveServer, StalledClient, Connection], None]:
    """Serve `managed` to one client that reads only when it is told to."""
    async with (
        serve(managed, send_buffer=SEND_BUFFER, **options) as server,
        StalledClient(f"{server.ws}/ws") as client,
    ):
        (connection,) = await opened(managed)
        yield server, client, connection


def fill_to_the_brim(connection: Connection) -> None:
    """Leave the socket without room for one byte, while the transport holds nothing."""
    filler = frame(Opcode.BINARY, bytes(16 * SEND_BUFFER), mask=False)
    with socket.fromfd(descriptor_of(connection), socket.AF_INET, socket.SOCK_STREAM) as same:
        # It is given far more than it may hold, so what the peer's system still takes by itself
        # makes no room. Nor does the last packet have any: nothing is added to the end of a record.
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(filler))
        assert same.send(filler, socket.MSG_EOR) == len(filler)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    assert not held_by(connection)


async def block(connection: Connection, message: str = BLOCK) -> None:
    """Send until the peer blocks."""
    while not connection.outbox.messages:
        await connection.send(message)
        connection._link.outbox.flush()  # type: ignore[attr-defined]


async def frames_until(client: RawClient, condition: Callable[[Frame], bool]) -> list[Frame]:
    """Return the frames that come up to the first that fulfils `condition`."""
    frames: list[Frame] = []
    while not frames or not condition(frames[-1]):
        frames.append(await client.read_frame())
    return frames


async def frames_to_the_end(client: RawClient) -> list[Frame]:
    """Return the frames that come before the server closes."""
    frames: list[Frame] = []
    with suppress(EOFError):
        while True:
            frames.append(await client.read_frame())
    return frames


class Writes:
    """
    The writes past the transport.

    Attributes:
        made: Descriptor and bytes of each, in order.
    """

    def __init__(self) -> None:
        self.made: list[tuple[int, bytes]] = []

    def to(self, descriptor: int) -> list[bytes]:
        """Return what was written to one descriptor."""
        return [data for number, data in self.made if number == descriptor]


@contextmanager
def watched_writes(monkeypatch: Any) -> Iterator[Writes]:
    """Take note of every `os.write()` in the block."""
    writes, write = Writes(), os.write

    def note(descriptor: int, data: bytes) -> int:
        written = write(descriptor, data)
        writes.made.append((descriptor, bytes(data[:written])))
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", note)
        yield writes
