"""Framed outboxes over pairs of sockets whose other end takes what it is told to."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wshub import _flush
from wshub._counters import Counters
from wshub._eager import start_eagerly
from wshub._flush import Flush
from wshub._framed_outbox import FramedOutbox
from wshub.messages import Outgoing
from wshub.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wshub import OutboxOptions
    from wshub._eager import Start
    from wshub._sink import Held
    from wshub.events import DropReason, EvictionReason

HEADER, LONG_HEADER = 4, 10
"""Bytes of a frame before its payload, which is never below 126 bytes here."""


class Wire:
    """
    A frame sink as uvicorn's: a transport that holds what the socket has no room for.

    Attributes:
        descriptor: That of the socket.
        room: Bytes that the socket still takes; None: all.
        held: What the transport holds.
        is_lost: Whether every write fails.
        taken: All that the other end got.
    """

    def __init__(self) -> None:
        self._mine, self._other = socket.socketpair()
        self._mine.settimeout(0)
        self._other.settimeout(0)
        self.descriptor = self._mine.fileno()
        self.room: int | None = None
        self.held = b""
        self.is_lost = False
        self.taken = bytearray()
        self._drained: asyncio.Future[None] | None = None

    def open_for(self, outbox: Held) -> None:
        """Let `outbox` write past it."""
        self._outbox: Held = outbox
        outbox.descriptor = self.descriptor

    @property
    def unsent_bytes(self) -> int:  # pragma: no cover  (only the slow runs wait for so long)
        return len(self.held)

    def write(self, frames: bytes, /) -> asyncio.Future[None] | None:
        """Send what there is room for, and hold the rest."""
        if self.is_lost:
            raise ConnectionResetError
        assert frames or self.held
        self.held += frames
        self._send_held()
        if not self.held:
            return None
        self._outbox.descriptor = -1
        if self._drained is None or self._drained.done():
            self._drained = asyncio.get_running_loop().create_future()
        return self._drained

    def put(self, data: bytes) -> int:
        """Do as `os.write()`."""
        assert not self.held
        if self.is_lost:
            raise BrokenPipeError
        if self.room == 0:
            raise BlockingIOError
        taken = data if self.room is None else data[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        rest = memoryview(taken)
        while rest:
            rest = rest[self._mine.send(rest[:4096]) :]
            self.taken += self._other.recv(4096)
        return len(taken)

    def give_room(self, size: int | None) -> None:
        """Let the other end take so much more; None: all from now on."""
        self.room = None if size is None or self.room is None else self.room + size
        if self.held and not self.is_lost:
            self._send_held()

    def lose(self) -> None:
        """Reset the connection."""
        self.is_lost = True
        self._outbox.descriptor = -1
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError())

    def end(self) -> None:
        """Close the sockets."""
        self._mine.close()
        self._other.close()

    @property
    def messages(self) -> list[int]:
        """The numbers of the messages that came whole, in order."""
        numbers, data, position = [], self.taken, 0
        while len(data) >= position + HEADER:
            first, size = data[position : position + 2]
            assert first == 0x81  # the last frame of a text
            start = position + (HEADER if size == 126 else LONG_HEADER)
            size = int.from_bytes(data[position + 2 : start])
            position = start + size
            if len(data) >= position:
                numbers.append(int(data[start:position].rstrip(b".")))
        return numbers

    def _send_held(self) -> None:
        if self.held and self.room != 0:
            data, self.held = self.held, b""
            written = self.put(data)
            self.held = data[written:]
        if not self.held:
            self._outbox.descriptor = self.descriptor
            if self._drained is not None and not self._drained.done():
                self._drained.set_result(None)


class WireRing:
    """Writes to wires as a ring does to sockets: first to all, and then it says what they took."""

    is_broken = False

    def __init__(self, network: Network) -> None:
        self._network = network

    def send(self, runs: Sequence[tuple[Sequence[int], bytes]]) -> list[int]:
        """Do as `Ring.send()`."""
        self._network.rings += 1
        return [self._put(one, data) for descriptors, data in runs for one in descriptors]

    def _put(self, descriptor: int, data: bytes) -> int:
        try:
            return self._network.write(descriptor, data)
        except BlockingIOError:
            return -errno.EAGAIN
        except BrokenPipeError:
            return -errno.EPIPE


class NotedOutbox(FramedOutbox):
    """
    An outbox that takes note of what is put.

    Attributes:
        noted: Numbers of the messages, in order.
    """

    __slots__ = ("noted",)

    def __init__(self, sink: Wire, link: Peer, hub: Network) -> None:
        super().__init__(sink, link, hub)  # type: ignore[arg-type]
        self.noted: list[int] = []

    def put(self, outgoing: Outgoing, start: Start = start_eagerly) -> None:
        self.note(outgoing)
        super().put(outgoing, start)

    def note(self, outgoing: Outgoing) -> None:
        """Take note of a message, once if it is put again to a batch of its own."""
        number = int(str(outgoing.data).rstrip("."))
        if number not in self.noted[-1:]:
            self.noted.append(number)


class Peer:
    """
    An outbox with its wire, and the link that it tells of its ends.

    Attributes:
        outbox: The outbox.
        wire: Its sink.
        evicted: Why it was evicted.
    """

    closure = None

    def __init__(self, network: Network) -> None:
        self.wire = Wire()
        self.evicted: list[EvictionReason] = []
        self.outbox = NotedOutbox(self.wire, self, network)
        self.wire.open_for(self.outbox)

    def evict(self, cause: EvictionReason, _: BaseException | None) -> None:
        self.evicted.append(cause)
        self.outbox.discard()

    def report_drop(self, _: DropReason, count: int) -> None:
        assert count > 0


class Network:
    """
    What the outboxes of one manager share.

    Attributes:
        peers: All of them.
        writes: How often something was written past a transport.
        rings: How often to many at once.
    """

    def __init__(self, options: OutboxOptions, peers: int) -> None:
        self.outbox_options = options
        self.counters = Counters()
        self.clock = FakeClock()
        self.flush = Flush(options, self.counters, self.clock, lambda: None)
        self.peers = [Peer(self) for _ in range(peers)]
        self._wires = {peer.wire.descriptor: peer.wire for peer in self.peers}
        self.writes = self.rings = 0
        self._count = 0

    def message(self, size: int = 200) -> Outgoing:
        """Return the next message, of at least 126 bytes."""
        self._count += 1
        return Outgoing(f"{self._count}".ljust(max(size, 126), "."))

    def broadcast(self, size: int = 200) -> None:
        """Do as a relay does."""
        message = self.message(size)
        others = self.flush.collect(message, [peer.outbox for peer in self.peers])
        for peer in self.peers:
            if peer.outbox in others:
                peer.outbox.put(message)
            else:
                peer.outbox.note(message)

    def put(self, peer: Peer, size: int = 200) -> None:
        """Put one message into one outbox."""
        peer.outbox.put(self.message(size))

    async def send(self, peer: Peer, size: int = 200) -> None:
        """Put one message into one outbox, behind whatever waits."""
        await peer.outbox.put_when_room(self.message(size))

    def write(self, descriptor: int, data: bytes) -> int:
        """Do as `os.write()`, to a wire."""
        self.writes += 1
        return self._wires[descriptor].put(data)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Lead `os.write()` and rings to the wires for the length of the block."""
        write, make_ring = os.write, _flush.make_ring
        os.write = self.write  # type: ignore[assignment]
        _flush.make_ring = lambda: WireRing(self)  # type: ignore[assignment,return-value]
        try:
            yield
        finally:
            os.write, _flush.make_ring = write, make_ring
            for peer in self.peers:
                peer.wire.end()
