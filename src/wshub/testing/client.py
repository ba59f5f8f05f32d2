"""A client that behaves, until it is told not to, and whose every wait ends."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from wshub.testing._extras import needing
from wshub.testing._sockets import reset_when_closed
from wshub.testing.deadline import DEADLINE, deadline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from websockets.asyncio.client import ClientConnection

__all__ = ("Client", "Refusal", "connect", "refusal")


class Client:
    """
    A connected WebSocket client, made by `connect()`.

    It reads on by itself, and answers pings. What it cannot do any more because the connection is
    over raises `websockets.exceptions.ConnectionClosed`; what does not happen in time raises
    TimeoutError.

    Attributes:
        websocket: The connection of the `websockets` package, for all else.
    """

    def __init__(self, websocket: ClientConnection, *, timeout: float = DEADLINE) -> None:
        self.websocket: ClientConnection = websocket
        self._timeout = timeout

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        async with deadline(self._timeout, "room to send"):
            await self.websocket.send(message)

    async def send_json(self, value: object) -> None:
        """Send `value` as JSON in a text message."""
        await self.send(json.dumps(value))

    async def receive(self) -> str | bytes:
        """Return the next message: str for a text message, bytes for a binary one."""
        async with deadline(self._timeout, "a message"):
            return await self.websocket.recv()

    async def receive_json(self) -> Any:
        """Return the value of the next message, which has to be JSON."""
        return json.loads(await self.receive())

    async def ask(self, message: str | bytes) -> str | bytes:
        """Send one message and return the next that comes."""
        await self.send(message)
        return await self.receive()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, and wait for the server's close frame."""
        async with deadline(self._timeout, "the server to close"):
            await self.websocket.close(code, reason)

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; return the close code and the reason as this client saw them."""
        async with deadline(self._timeout, "the connection to end"):
            await self.websocket.wait_closed()
        return cast("tuple[int, str]", (self.websocket.close_code, self.websocket.close_reason))

    def stop_reading(self) -> None:
        """Leave what comes in the socket, as a busy client does."""
        self.websocket.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        self.websocket.transport.resume_reading()

    def reset(self) -> None:
        """Vanish with a TCP reset, without a close frame. Idempotent."""
        transport = self.websocket.transport
        if not transport.is_closing():
            reset_when_closed(transport.get_extra_info("socket").fileno())
        transport.abort()


@asynccontextmanager
async def connect(
    url: str, *, timeout: float = DEADLINE, **options: Any
) -> AsyncGenerator[Client, None]:
    """
    Connect to `url` for the length of the block, and close with 1000 at its end.

    Args:
        url: Of a WebSocket route: `f"{server.ws}/ws"`.
        timeout: Seconds after which any wait of this client fails.
        **options: Those of `websockets.asyncio.client.connect()`, say `additional_headers=` or
            `subprotocols=`.

    Raises:
        websockets.exceptions.InvalidStatus: The server refused the handshake: see `refusal()`.
        ImportError: websockets is missing.
    """
    with needing("wshub[testing]"):
        from websockets.asyncio.client import connect as connect_websocket

    settings: dict[str, Any] = {
        "open_timeout": timeout,
        "close_timeout": timeout,
        "ping_interval": None,
        "max_queue": None,
        "proxy": None,
    }
    async with connect_websocket(url, **(settings | options)) as websocket:
        client = Client(websocket, timeout=timeout)
        try:
            yield client
        finally:
            client.read_on()  # else the server's close frame would not be seen


class Refusal(NamedTuple):
    """
    The HTTP answer to a handshake that a server refused.

    Attributes:
        status: Its status code.
        headers: By their names in lower case.
        body: Its content.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the value of a body in JSON."""
        return json.loads(self.body)


async def refusal(url: str, *, timeout: float = DEADLINE, **options: Any) -> Refusal:
    """
    Return how a server refuses a handshake. Takes what `connect()` takes.

    Raises:
        AssertionError: It did not refuse it.
    """
    with needing("wshub[testing]"):
        from websockets.exceptions import InvalidStatus

    try:
        async with connect(url, timeout=timeout, **options):
            raise AssertionError(f"the handshake with {url} was accepted")
    except InvalidStatus as refused:
        response = refused.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return Refusal(response.status_code, headers, bytes(response.body or b""))
