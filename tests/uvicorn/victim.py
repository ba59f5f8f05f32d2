"""The protocol without a server around it, for clients that send anything."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from uvicorn.server import ServerState

from tests.managed import ManagedApp, echo
from tests.uvicorn.fanout import SEND_BUFFER
from wshub import ConnectionManager, OutboxOptions
from wshub.testing import Opcode, frame
from wshub.testing.deadline import DEADLINE, deadline
from wshub.uvicorn import FanoutProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: victim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

LARGEST = 16_384
"""Bytes of the largest message that is taken."""

READ_AHEAD = 8

SLICE_LIMIT = 300_000
"""More than what may be ahead of the handler: an inbox, and one slice that was inflated."""


async def soon(condition: Callable[[], object]) -> None:
    """Do as `until()`, without a pause between two looks: there are many thousands of them."""
    async with deadline(DEADLINE, "the victim"):
        while not condition():
            await asyncio.sleep(0)


class Errors(logging.Handler):
    """
    Keeps what is logged as an error.

    Attributes:
        seen: The messages so far, and what event loops complained of.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:  # pragma: no cover (there is none)
        self.seen.append(f"{record.getMessage()} {record.exc_info}")

    def complain(  # pragma: no cover (there is none)
        self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]
    ) -> None:
        """Take note of an exception that reached the event loop."""
        self.seen.append(f"{context['message']} {context.get('exception')!r}")


class Client:
    """
    A socket whose other end is a protocol.

    Attributes:
        protocol: The protocol.
    """

    def __init__(self, end: socket.socket, protocol: FanoutProtocol) -> None:
        self.protocol = protocol
        self._end = end

    async def send(self, data: bytes) -> None:
        """Send bytes, as far as the protocol still reads, and let it see them."""
        try:
            while data:
                data = data[self._end.send(data) :]
                await asyncio.sleep(0)
        except (BlockingIOError, ConnectionError):
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def read(self) -> bytes:
        """Return what has come; nothing once it has ended."""
        try:
            return self._end.recv(1 << 20)
        except (BlockingIOError, ConnectionError):
            return b""

    def leave(self) -> None:
        """Close the socket."""
        self._end.close()


class Victim:
    """
    An app that echoes what it gets, and a bystander that it has to serve all the time.

    Attributes:
        manager: The manager.
    """

    def __init__(self) -> None:
        outbox = OutboxOptions(max_messages=50, max_bytes=100_000, send_timeout=0.2)
        self.manager = ConnectionManager(outbox=outbox, read_ahead=READ_AHEAD)
        self._managed = ManagedApp(echo, self.manager)
        self._config = uvicorn.Config(
            self._managed.app,
            ws=FanoutProtocol,
            ws_max_size=LARGEST,
            ws_ping_interval=None,
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,
        )
        self._config.load()
        self._state = ServerState()
        self._errors = Errors()
        self._loggers = [logging.getLogger(name) for name in ("", "uvicorn.error", "wshub")]

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(self._errors.complain)
        for logger in self._loggers:
            logger.addHandler(self._errors)
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)
        self._bystander = await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bystander.leave()
        await soon(lambda: not self._state.connections)
        await soon(lambda: not self._state.tasks)
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.removeHandler(self._errors)
            logger.setLevel(level)

    async def connect(self, *, deflate: bool = False, early: bytes = b"") -> Client:
        """Connect; `early` comes before the handshake is answered."""
        mine, other = socket.socketpair()
        other.settimeout(0)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: FanoutProtocol(self._config, self._state, {}), mine
        )
        client = Client(other, protocol)
        protocol.data_received(HANDSHAKE + (DEFLATE if deflate else b"") + b"\r\n")
        if early:
            protocol.data_received(early)
        else:
            await soon(lambda: protocol.handshake_complete)
        return client

    async def suffer(
        self, pieces: Iterable[bytes], *, deflate: bool, early: bytes, reads: bool, floods: bool
    ) -> None:
        """Let a client send `pieces`, and leave; check that nobody minds."""
        client = await self.connect(deflate=deflate, early=early)
        if floods:
            for _ in range(3):
                await self.manager.broadcast("x" * 30_000)
                self._bystander.read()
        for piece in pieces:
            await client.send(piece)
            if reads:
                client.read()
            protocol = client.protocol
            assert len(protocol._late_pong) <= 3 * 4096
            assert sum(map(len, protocol._backlog)) <= SLICE_LIMIT
        await self._serve_bystander()
        client.leave()
        await soon(lambda: len(self._state.connections) == 1)
        await soon(lambda: len(self._state.tasks) == 1)
        self._managed.opened.clear()
        self._managed.outcomes.clear()
        assert self._errors.seen == []
        figures = self.manager.statistics()
        assert figures.queued == 0
        assert figures.connections == 1

    async def _serve_bystander(self) -> None:
        while self._bystander.read():
            pass
        await self._bystander.send(frame(Opcode.TEXT, b"still there?"))
        answer = b""

        def is_answered() -> bool:
            nonlocal answer
            answer += self._bystander.read()
            return answer.endswith(b"\x81\x0cstill there?")

        await soon(is_answered)
