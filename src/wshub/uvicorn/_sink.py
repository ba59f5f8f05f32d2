"""The frame sink of one uvicorn connection."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Protocol

from wshub._eager import start_eagerly
from wshub._frames import PLAIN, FrameForm
from wshub._sink import abort_transport, let_abort, shows_progress_of, unsent_bytes_of

if TYPE_CHECKING:
    from uvicorn._types import WebSocketCloseEvent

    from wshub._sink import Held, Receiver

__all__ = ("UvicornSink",)

_HAS_DESCRIPTORS = os.name == "posix"
"""Whether `os.write()` takes the descriptor of a socket."""


class _Protocol(Protocol):
    """What the sink needs of uvicorn's protocol."""

    transport: asyncio.Transport
    writable: asyncio.Event
    disconnected: bool

    @property
    def window_bits(self) -> int:
        """Window that frames may be compressed with; 0: not at all."""
        ...

    async def send(self, event: WebSocketCloseEvent, /) -> None:
        """Take an ASGI event."""
        ...

    def attach(self, receiver: Receiver, held: Held, /) -> None:
        """Hand over what comes in from now on."""
        ...

    def resume(self) -> None:
        """Go on reading."""
        ...


class UvicornSink:
    """Writes frames to the transport, or lets them be written past it while it holds nothing."""

    __slots__ = ("_drained", "_held", "_knows_when_full", "_protocol", "_socket")

    def __init__(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self._held: Held | None = None
        self._socket = -1
        self._knows_when_full = False
        self._drained: asyncio.Future[None] | None = None

    def attach(self, receiver: Receiver, held: Held, compress_from: int, /) -> None:
        """Hand all that comes in to `receiver` from now on. What goes out comes from `held`."""
        held.form = make_form(self._protocol.window_bits, compress_from)
        self._held = held
        transport = self._protocol.transport
        let_abort(transport)
        if not transport.is_closing():
            _write_without_delay(transport)
            if _HAS_DESCRIPTORS and not self._is_encrypted:
                self._socket = transport.get_extra_info("socket").fileno()
            self.open()
        self._protocol.attach(receiver, held)

    def resume(self) -> None:
        """Go on reading after `Receiver.take()` returned False."""
        self._protocol.resume()

    def write(self, frames: bytes, /) -> asyncio.Future[None] | None:
        """Send `frames`, or what is left of them, by way of the transport."""
        transport = self._protocol.transport
        if transport.is_closing():
            raise ConnectionResetError("the transport is closed")
        if not self._knows_when_full:
            self.open()  # it held something when it was attached, and nobody told that it left
        transport.write(frames)
        if transport.is_closing():
            raise ConnectionResetError("the peer is gone")
        if self._protocol.writable.is_set():
            self.open()
            return None
        if self._drained is None or self._drained.done():
            self._drained = asyncio.get_running_loop().create_future()
        return self._drained

    def close(self, code: int, reason: str, /) -> asyncio.Future[None] | None:
        """Send a close frame. Nothing is written after it."""
        return start_eagerly(
            self._protocol.send({"type": "websocket.close", "code": code, "reason": reason})
        )

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the transport holds; under TLS at least one until the connection is lost."""
        protocol = self._protocol
        return 0 if protocol.disconnected else unsent_bytes_of(protocol.transport)

    @property
    def shows_progress(self) -> bool:
        """Whether these become fewer as the peer reads; not with TLS on uvloop."""
        return shows_progress_of(self._protocol.transport)

    @property
    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._protocol.transport.is_closing()

    @property
    def closes_while_read(self) -> bool:
        """True: nobody reads by asking for events."""
        return True

    def abort(self) -> None:
        """Drop the connection at once."""
        self.end()
        if not self._protocol.disconnected:
            abort_transport(self._protocol.transport)

    def open(self) -> None:
        """Let frames be written past the transport, if that holds nothing."""
        transport = self._protocol.transport
        held = transport.get_write_buffer_size()
        # Of what it held before the manager took over, it will not tell that the last has gone.
        is_told = not held or not self._knows_when_full
        if is_told and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if held or transport.is_closing():
            return
        if not self._knows_when_full:
            # From now on the transport tells of the first byte that it has to hold. asyncio's for
            # TLS would take 0 for full. uvloop would not tell if it held anything already.
            self._knows_when_full = True
            transport.set_write_buffer_limits(high=1 if self._is_encrypted else 0, low=0)
        self._set_descriptor(self._socket)

    def shut(self) -> None:
        """Let nothing be written past the transport, which holds something."""
        self._set_descriptor(-1)

    def end(self) -> None:
        """Shut for good: somebody else may soon have the descriptor."""
        self._socket = -1
        self.shut()

    def lose(self) -> None:
        """End the wait for what the transport held, and will not write any more."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the connection was lost"))

    def _set_descriptor(self, descriptor: int) -> None:
        if self._held is not None:
            self._held.descriptor = descriptor

    @property
    def _is_encrypted(self) -> bool:
        return self._protocol.transport.get_extra_info("sslcontext") is not None


def _write_without_delay(transport: asyncio.BaseTransport) -> None:
    """Send what was collected at once, though what went before is not acknowledged yet."""
    # uvloop always does. asyncio does not for what the workers of uvicorn and gunicorn listen on,
    # a socket that was made without saying which protocol.
    if not isinstance(transport, asyncio.Transport):
        return
    taken = transport.get_extra_info("socket")
    if taken.family in {socket.AF_INET, socket.AF_INET6}:
        with suppress(OSError):  # it was reset
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@cache
def make_form(window_bits: int, compress_from: int) -> FrameForm:
    """Return the one form with these values: that two are the same shows without comparing."""
    return FrameForm(window_bits, compress_from) if window_bits else PLAIN
