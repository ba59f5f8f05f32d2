"""One connection to a NATS server, of nats-py's making, without its second thoughts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from wshub.backends._broker import BrokerRefused

__all__ = ("NatsConnection",)

Take = Callable[[bytes], Awaitable[None]]

OURS: Mapping[str, Any] = {
    "allow_reconnect": False,
    "connect_timeout": None,  # with one, a cancellation may be lost in Python 3.11's wait_for()
    "ping_interval": 3600,
}
"""Options of nats-py that are not the user's: deadlines and probes are the supervisor's."""

NOT_NATS = "what answers there is not NATS"
NOT_ENCRYPTED = "it does not ask for TLS; use nats:// if nobody can listen on the way to it"


class NatsConnection(Client):
    """
    A connection that ends once and for all, and says so.

    nats-py shakes hands, reads and parses. What it would do next is done here: it keeps a queue
    for each subscription, which loses the order between them; answers to its `flush()` may be
    older than what was written; it connects again by itself; and a fault in its reader leaves a
    client that hears nothing.

    Attributes:
        ended: Done once the connection is over; its result tells why.
    """

    ended: asyncio.Future[Exception]
    _flusher_task: asyncio.Task[None] | None
    _ping_interval_task: asyncio.Task[None] | None
    _reading_task: asyncio.Task[None] | None
    _pongs: list[asyncio.Future[bool]]

    def __init__(self, take: Take, *, encrypted: bool) -> None:
        super().__init__()
        self._take = take
        self._encrypted = encrypted
        self._opened = False

    async def open(self, server: str, options: Mapping[str, Any]) -> None:
        """
        Connect to a server and log in.

        Raises:
            BrokerRefused: Something else answers, or without TLS where that is a must.
            Exception: Whatever nats-py says.
        """
        self.ended = asyncio.get_running_loop().create_future()
        try:
            await self.connect([server], error_cb=self._hear, **OURS, **options)
        except (NatsError, ValueError) as error:
            if self._server_info or self._transport is None or self._transport.at_eof():
                raise
            raise BrokerRefused(NOT_NATS) from error
        self._opened = True
        assert self._reading_task is not None  # noqa: S101  (it is connected)
        self._reading_task.add_done_callback(self._finish)

    def drop(self) -> list[asyncio.Task[None]]:
        """Close it at once, however broken it is; return the tasks that end with it."""
        for writer in (self._writer(), self._writer("_bare_io_writer")):
            if writer is not None:
                writer.transport.abort()
        self._opened = True
        self._status = Client.CLOSED
        tasks = [self._reading_task, self._ping_interval_task, self._flusher_task]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        return running

    async def write(self, data: bytes) -> None:
        """Send commands, as they are; may wait until the socket takes more."""
        self.check()
        writer = self._writer()
        assert writer is not None  # noqa: S101  (it was connected, and has not ended)
        writer.write(data)
        await writer.drain()

    async def settle(self, data: bytes) -> None:
        """Send commands, and wait until the server has done all that was ever sent to it."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        await self.write(data + b"PING\r\n")
        await self.wait(pong)

    async def wait(self, answer: asyncio.Future[Any]) -> None:
        """Wait for a future, which is not cancelled, or for the end of the connection."""
        await asyncio.wait({answer, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        self.check()

    def end(self, error: Exception) -> None:
        """Say that the connection is over. The first to say so is believed."""
        if not self.ended.done():
            self.ended.set_result(error)

    def check(self) -> None:
        """Raise what ended the connection, if it is over."""
        if self.ended.done():
            error = self.ended.result()
            raise ConnectionError(str(error) or repr(error)) from error

    def _writer(self, name: str = "_io_writer") -> asyncio.StreamWriter | None:
        writer: asyncio.StreamWriter | None = getattr(self._transport, name, None)
        return writer

    async def _hear(self, error: Exception) -> None:
        if not self._opened:
            raise error  # or nats-py would try again and again
        self.end(error)

    def _finish(self, _: asyncio.Task[None]) -> None:
        self.end(self.last_error or ConnectionError("the connection to NATS is closed"))

    def _connect_command(self) -> bytes:
        # From here on there are passwords in it.
        writer = self._writer()
        if self._encrypted and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise BrokerRefused(NOT_ENCRYPTED)
        return super()._connect_command()

    async def _process_msg(
        self,
        sid: int,  # noqa: ARG002  (nats-py's)
        subject: bytes,  # noqa: ARG002  (nats-py's)
        reply: bytes,  # noqa: ARG002  (nats-py's)
        data: bytes,
        headers: bytes | None,  # noqa: ARG002  (nats-py's)
    ) -> None:
        await self._take(data)
