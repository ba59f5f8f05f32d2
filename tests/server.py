"""A real uvicorn server in the event loop of the test, and a client with deadlines."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.types import ASGIApp

DEADLINE = 10.0
"""Seconds after which a condition that a test waits for counts as never met."""


@dataclass(frozen=True)
class LiveServer:
    """
    A running server.

    Attributes:
        port: Where it listens on 127.0.0.1.
        uvicorn: The server object, for its state and for stopping it.
    """

    port: int
    uvicorn: uvicorn.Server

    @property
    def http(self) -> str:
        """Base URL for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Base URL for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to pytest."""
        yield


@asynccontextmanager
async def serve(
    app: ASGIApp, *, ws: str = "websockets-sansio", port: int = 0, **options: Any
) -> AsyncIterator[LiveServer]:
    """Serve `app` on a free port, in this event loop, until the block ends."""
    listener = socket.create_server(("127.0.0.1", port))
    settings: dict[str, Any] = {
        "log_config": None,
        "timeout_graceful_shutdown": 2,
        "ws_ping_interval": None,
    }
    config = uvicorn.Config(app, ws=ws, **(settings | options))
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started or running.done())
        yield LiveServer(listener.getsockname()[1], server)
    finally:
        server.should_exit = True
        async with asyncio.timeout(DEADLINE):
            await running
        listener.close()


async def until(condition: Callable[[], object]) -> None:
    """Give the event loop turns until `condition()` is true, at most `DEADLINE` seconds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


class Client:
    """A WebSocket client whose every wait has a deadline."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        async with asyncio.timeout(DEADLINE):
            await self.websocket.send(message)

    async def receive(self) -> str | bytes:
        """Return the next message."""
        async with asyncio.timeout(DEADLINE):
            return await self.websocket.recv()

    async def ask(self, message: str | bytes) -> str | bytes:
        """Send one message and return the next that comes."""
        await self.send(message)
        return await self.receive()

    async def close(self) -> None:
        """Close with 1000."""
        async with asyncio.timeout(DEADLINE):
            await self.websocket.close()

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the end; return the close code and reason that this client saw."""
        async with asyncio.timeout(DEADLINE):
            await self.websocket.wait_closed()
        return self.websocket.close_code, self.websocket.close_reason

    def stop_reading(self) -> None:
        """Leave what comes in the socket, as a busy or stalled client does."""
        self.websocket.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        self.websocket.transport.resume_reading()

    def reset(self) -> None:
        """Vanish with a TCP reset, without a close frame."""
        self.websocket.transport.abort()


@asynccontextmanager
async def dial(url: str, **options: Any) -> AsyncIterator[Client]:
    """Connect to `url` for the length of the block. The client reads on by itself."""
    settings: dict[str, Any] = {
        "open_timeout": DEADLINE,
        "close_timeout": DEADLINE,
        "ping_interval": None,
        "max_queue": None,
    }
    async with connect_websocket(url, **(settings | options)) as websocket:
        yield Client(websocket)


async def vanish_during_handshake(server: LiveServer, path: str, entered: asyncio.Event) -> None:
    """Ask for a WebSocket and reset the connection once the app has been `entered`."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    async with asyncio.timeout(DEADLINE):
        await entered.wait()
    writer.transport.abort()
    await until(lambda: not server.uvicorn.server_state.connections)
