"""A client over TLS that closes its sending side alone, which asyncio's streams do not let it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.uvicorn.wire import Wire
from wshub.testing.deadline import DEADLINE, deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ("HalfTls", "open_half_tls")


class HalfTls(Wire):
    """
    A wire that encrypts by itself.

    Attributes:
        said_goodbye: Whether the server said in TLS that no more comes.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        super().__init__(asyncio.StreamReader(), writer)
        self._encrypted = reader
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.said_goodbye = False

    async def shake_hands(self) -> None:
        """Agree with the server on keys."""
        async with deadline(DEADLINE, "keys for TLS"):
            while True:
                with suppress(ssl.SSLWantReadError):
                    self._tls.do_handshake()
                    return
                await super().send(self._outgoing.read())
                self._incoming.write(await self._encrypted.read(65536))

    async def send(self, data: bytes) -> None:
        """Send bytes, encrypted."""
        self._tls.write(data)
        await super().send(self._outgoing.read())

    async def send_last(self, data: bytes) -> None:
        """Send bytes and, together with them, the word of TLS that no more is sent."""
        if data:
            self._tls.write(data)
        with suppress(ssl.SSLWantReadError):  # it would wait for the server's word
            self._tls.unwrap()
        await super().send(self._outgoing.read())

    async def decrypt(self) -> None:
        """Let what comes be read, until the server closes."""
        try:
            while data := await self._encrypted.read(65536):
                self._incoming.write(data)
                self._decrypt()
        finally:
            self._reader.feed_eof()

    def _decrypt(self) -> None:
        with suppress(ssl.SSLWantReadError):
            with suppress(ssl.SSLZeroReturnError):  # for b"", if we have said that we end
                while data := self._tls.read(65536):
                    self._reader.feed_data(data)
            self.said_goodbye = True


@asynccontextmanager
async def open_half_tls(url: str, context: ssl.SSLContext) -> AsyncIterator[HalfTls]:
    """Connect for the length of the block."""
    async with deadline(DEADLINE, f"a connection to {url}"):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    wire = HalfTls(reader, writer, context)
    try:
        await wire.shake_hands()
        decrypting = asyncio.create_task(wire.decrypt())
        try:
            await wire.ask(url, {})
            await wire.hear()
            yield wire
        finally:
            writer.close()
            await decrypting
    finally:
        writer.close()
        await writer.wait_closed()
