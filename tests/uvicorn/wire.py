"""A client that keeps every byte, over TCP or TLS."""

from __future__ import annotations

import asyncio
import socket
import zlib
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from wshub.testing import Frame, Opcode, frame
from wshub.testing.deadline import DEADLINE, deadline

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

__all__ = (
    "COMPRESSED",
    "Head",
    "Received",
    "Wire",
    "answered",
    "code_of",
    "deflate",
    "frames_of",
    "inflate",
    "open_wire",
)

DEFLATE = "permessage-deflate"
OURS = "server_no_context_takeover"
"""What `FanoutProtocol` adds to the answer of a client that does not ask for it."""

COMPRESSED = 4
"""The bit RSV1 among the three reserved ones."""

STEP = 64
"""Bytes decompressed at a time."""

_TAIL = b"\x00\x00\xff\xff"


class Head(NamedTuple):
    """
    The answer to a handshake.

    Attributes:
        status: Its first line.
        headers: In order, names in lower case; without the date.
    """

    status: str
    headers: list[tuple[str, str]]

    @property
    def extensions(self) -> str | None:
        """What was agreed upon, in the words of the server."""
        return dict(self.headers).get("sec-websocket-extensions")

    def without_ours(self) -> Head:
        """Return it without the parameter that only `FanoutProtocol` adds."""
        return Head(
            self.status,
            [(name, value.replace(f"; {OURS}", "")) for name, value in self.headers],
        )


class Wire:
    """
    Sends what it is told to, and keeps what comes.

    Attributes:
        head: The server's answer to the handshake.
        received: All bytes that were read after it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = Head("", [])
        self.received = b""

    async def ask(self, url: str, headers: Mapping[str, str]) -> None:
        """Ask for a WebSocket."""
        parts = urlsplit(url)
        fields = {
            "Host": "localhost",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **headers,
        }
        lines = [f"{name}: {value}" for name, value in fields.items()]
        request = f"GET {parts.path}?{parts.query} HTTP/1.1"
        await self.send("\r\n".join([request, *lines, "", ""]).encode())

    async def hear(self) -> None:
        """Read the answer to that."""
        async with deadline(DEADLINE, "the answer to the handshake"):
            answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *rest = answer.rstrip().split("\r\n")
        pairs = [line.split(": ", 1) for line in rest]
        self.head = Head(
            status,
            [(name.lower(), value) for name, value in pairs if name.lower() != "date"],
        )

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        async with deadline(DEADLINE, "the server to take bytes"):
            await self._writer.drain()

    async def trickle(self, data: bytes) -> None:
        """Send bytes one at a time, with turns for the server in between."""
        for number in range(len(data)):
            await self.send(data[number : number + 1])
            await asyncio.sleep(0)

    async def read(self, size: int) -> bytes:
        """Return the next bytes; raises EOFError if the server closes before."""
        async with deadline(DEADLINE, f"{size} bytes"):
            data = await self._reader.readexactly(size)
        self.received += data
        return data

    async def read_frames(self, count: int) -> None:
        """Read so many frames."""
        for _ in range(count):
            head = await self.read(2)
            size = {126: 2, 127: 8}.get(head[1], 0)
            await self.read(int.from_bytes(await self.read(size)) if size else head[1])

    async def read_to_the_end(self) -> None:
        """Read all that comes before the server closes; a reset raises ConnectionError."""
        async with deadline(DEADLINE, "the server to close the connection"):
            self.received += await self._reader.read()

    def leave(self) -> None:
        """Close, over TLS with a word."""
        self._writer.close()

    def shut(self) -> None:
        """Close the sending side alone."""
        self._writer.write_eof()


@asynccontextmanager
async def open_wire(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    context: ssl.SSLContext | None = None,
    wait: bool = True,
    polite: bool = False,
    receive_buffer: int | None = None,
) -> AsyncIterator[Wire]:
    """
    Connect for the length of the block, over TLS if there is a `context` for that.

    If it does not wait for the answer, `Wire.hear()` has to. One that is polite says over TLS that
    it leaves. With a `receive_buffer` of so many bytes hardly more is taken than is read.
    """
    parts = urlsplit(url)
    async with deadline(DEADLINE, f"a connection to {parts.netloc}"):
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)  # noqa: FBT003  (socket's own)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", parts.port))
        reader, writer = await asyncio.open_connection(
            sock=client,
            ssl=context,
            server_hostname="localhost" if context else None,
            limit=receive_buffer or 65536,
        )
    wire = Wire(reader, writer)
    try:
        await wire.ask(url, headers or {})
        if wait:
            await wire.hear()
        yield wire
    finally:
        if context is None or polite:
            writer.close()
        else:
            writer.transport.abort()  # one that stalls would not come to an end over TLS
        with suppress(OSError):  # it was reset
            async with deadline(DEADLINE, "the end of a client"):
                await writer.wait_closed()


def answered(opcode: int, payload: bytes = b"") -> bytes:
    """Return a frame as a server sends it."""
    return frame(opcode, payload, mask=False)


class Received(NamedTuple):
    """
    A frame as it came.

    Attributes:
        frame: All but the reserved bits.
        reserved: The bits RSV1 (4), RSV2 (2) and RSV3 (1).
    """

    frame: Frame
    reserved: int


def frames_of(data: bytes) -> list[Received]:
    """Return the frames that `data` is made of, to the last byte."""
    frames: list[Received] = []
    while data:
        first, second = data[0], data[1]
        size = {126: 2, 127: 8}.get(second, 0)
        length = int.from_bytes(data[2 : 2 + size]) if size else second
        payload, data = data[2 + size : 2 + size + length], data[2 + size + length :]
        assert len(payload) == length, "a frame is torn"
        found = Frame(first & 15, payload, fin=bool(first & 128))
        frames.append(Received(found, first >> 4 & 7))
    return frames


def deflate(payload: bytes, window_bits: int = 12) -> bytes:
    """Return `payload` compressed as in a message of its own."""
    encoder = zlib.compressobj(wbits=-window_bits)
    data = encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_TAIL)


def inflate(data: bytes, *, window_bits: int = 15, takeover: bool = True) -> list[Frame]:
    """
    Return the frames in `data`, decompressed as a client does that agreed on these parameters.

    With less of a window, or without the context of earlier messages, only what keeps to it can
    be decompressed.
    """
    frames: list[Frame] = []
    decoder = zlib.decompressobj(wbits=-window_bits)
    for found, reserved in frames_of(data):
        if reserved == COMPRESSED:
            assert found.opcode in {Opcode.TEXT, Opcode.BINARY}
            if not takeover:
                decoder = zlib.decompressobj(wbits=-window_bits)
            # In small steps: what refers further back than the window then has to fail.
            data, payload = found.payload + _TAIL, b""
            while chunk := decoder.decompress(data, STEP):
                data, payload = decoder.unconsumed_tail, payload + chunk
            frames.append(found._replace(payload=payload))
        else:
            assert reserved == 0
            frames.append(found)
    return frames


def code_of(payload: bytes) -> int | None:
    """Return the code in the payload of a close frame."""
    return int.from_bytes(payload[:2]) if payload else None
