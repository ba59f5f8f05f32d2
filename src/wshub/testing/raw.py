"""Clients that misbehave: a handshake over a plain socket, and then only what a test does."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from wshub.testing._sockets import reset_when_closed
from wshub.testing.deadline import DEADLINE, deadline
from wshub.testing.frames import LENGTH_IN_2_BYTES, Frame, frame

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("DeadClient", "HalfOpenClient", "RawClient", "StalledClient")

TINY = 4096
"""Bytes that a stalled client's socket takes in before it blocks the server."""


class RawClient:
    """
    A WebSocket client that sends and reads only what it is told to: no pong, no close frame.

    `async with RawClient(f"{server.ws}/ws") as raw` completes the handshake. At the end of the
    block the socket is closed, without a close frame.

    Args:
        url: Of a WebSocket route: `ws://` only.
        headers: More headers for the handshake.
        wait: Whether to wait for the server's answer to the handshake. If not, the answer is
            what `read()` returns first.
        receive_buffer: Bytes that the socket takes in without being read; None is the system's
            default.
        timeout: Seconds after which any wait of this client raises TimeoutError.

    Attributes:
        socket: The connected socket, non-blocking.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        wait: bool = True,
        receive_buffer: int | None = None,
        timeout: float = DEADLINE,
    ) -> None:
        self._url = urlsplit(url)
        self._headers = dict(headers or {})
        self._wait = wait
        self._receive_buffer = receive_buffer
        self._timeout = timeout
        self._unread = b""

    async def __aenter__(self) -> Self:
        self.socket: socket.socket = socket.socket()
        try:
            await self._open()
        except BaseException:
            self.socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def send_bytes(self, data: bytes) -> None:
        """Send `data` as it is."""
        async with deadline(self._timeout, "the server to take bytes"):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True
    ) -> None:
        """Send one frame, valid or not."""
        await self.send_bytes(frame(opcode, payload, fin=fin, mask=mask))

    async def read(self, size: int) -> bytes:
        """
        Return the next `size` bytes, or what came of them before the server closed.

        Raises:
            ConnectionResetError: The server reset the connection.
        """
        async with deadline(self._timeout, f"{size} bytes"):
            while len(self._unread) < size and await self._receive():
                pass
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    async def read_frame(self) -> Frame:
        """
        Return the next frame.

        Raises:
            EOFError: The server closed the connection first.
            ConnectionResetError: It reset it.
        """
        first, second = await self._read_exactly(2)
        length = second & 0x7F
        if length >= LENGTH_IN_2_BYTES:
            size = 2 if length == LENGTH_IN_2_BYTES else 8
            length = int.from_bytes(await self._read_exactly(size))
        payload = await self._read_exactly(length)
        return Frame(first & 0x0F, payload, fin=bool(first & 0x80))

    async def _read_exactly(self, size: int) -> bytes:
        data = await self.read(size)
        if len(data) < size:
            raise EOFError("the server closed the connection")
        return data

    async def _receive(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        self._unread += data
        return bool(data)

    async def _open(self) -> None:
        if self._receive_buffer is not None:
            # Before it is connected: that is when the window is agreed on.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self.socket.settimeout(0)
        loop = asyncio.get_running_loop()
        async with deadline(self._timeout, f"a connection to {self._url.netloc}"):
            await loop.sock_connect(self.socket, (self._url.hostname, self._url.port))
        await self.send_bytes(self._handshake())
        if self._wait:
            await self._read_answer()

    def _handshake(self) -> bytes:
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        headers = {
            "Host": self._url.netloc,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **self._headers,
        }
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _read_answer(self) -> None:
        async with deadline(self._timeout, "the answer to the handshake"):
            while b"\r\n\r\n" not in self._unread:
                if not await self._receive():
                    raise ConnectionError("the server closed the connection during the handshake")
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0].decode()
        if " 101 " not in status:
            raise ConnectionError(f"the server refused the handshake: {status}")


class StalledClient(RawClient):
    """
    A client that stopped reading: the server soon cannot write to it.

    The handshake goes over a tiny receive buffer, so that little is lost in it. `read()` makes it
    catch up.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int = TINY,
        timeout: float = DEADLINE,
    ) -> None:
        super().__init__(url, headers=headers, receive_buffer=receive_buffer, timeout=timeout)


class DeadClient(RawClient):
    """A client whose machine fell over: a TCP reset, at the end of the block at the latest."""

    async def __aexit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Reset the connection. Idempotent."""
        if self.socket.fileno() != -1:
            reset_when_closed(self.socket.fileno())
            self.socket.close()


class HalfOpenClient(RawClient):
    """
    A client that is gone without a word, as behind a cable that was pulled.

    Its system takes what comes, and nobody answers: no pong, no close frame.
    """

    def shut(self) -> None:
        """Close the sending side alone: the server reads to the end, and may still write."""
        self.socket.shutdown(socket.SHUT_WR)
