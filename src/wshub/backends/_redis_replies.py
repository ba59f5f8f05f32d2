"""The answers to publications: each one settles the command that it answers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from wshub.backends._broker import BrokerRefused, NothingSent

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Replies",)

CONGESTED = 1024 * 1024
"""Bytes that the server has not taken yet, from which on nothing more is written at once."""

_REFUSALS = (b"-ERR ", b"-NOAUTH ", b"-NOPERM ")
"""How answers begin that will be the same the next time."""


class Replies(asyncio.Protocol):
    """
    Reads from a connection on which nothing but publications are sent.

    It takes the place of the stream that redis-py reads from once the connection is made: an
    answer then wakes the one who waits for it, and nobody else. Calls `lost` once with what ends
    it; nothing is sent from then on.
    """

    def __init__(self, transport: asyncio.Transport, lost: Callable[[Exception], None]) -> None:
        self._transport = transport
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._answered = 0
        self._rest = b""
        self._failure: Exception | None = None
        transport.set_protocol(self)

    @property
    def is_congested(self) -> bool:
        """Whether the server takes less than it is sent."""
        return self._transport.get_write_buffer_size() + self._unwritten_bytes >= CONGESTED

    def check(self) -> None:
        """Raise NothingSent if the connection has failed."""
        if self._failure is not None:
            raise NothingSent(str(self._failure)) from self._failure

    def send(self, commands: bytes, number: int) -> asyncio.Future[None]:
        """
        Write so many commands; return what is done once all of them are answered.

        At once if nothing is on its way, or else with what more there is in this turn of the
        event loop: for either side a system call takes longer than all the rest.

        Raises:
            NothingSent: The connection has failed before.
        """
        self.check()
        taken: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._transport.write(commands)
        else:
            if not self._unwritten:
                self._loop.call_soon(self._write)
            self._unwritten.append(commands)
            self._unwritten_bytes += len(commands)
        self._waiting.append((taken, number))
        return taken

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        self._unwritten_bytes = 0
        if self._failure is None:
            self._transport.write(b"".join(unwritten))

    def data_received(self, data: bytes) -> None:
        """Settle those who are answered."""
        *answers, self._rest = (self._rest + data).split(b"\r\n")
        for answer in answers:
            if answer[:1] != b":" or not self._waiting:
                self._fail(_error_of(answer))
                return
            self._answered += 1
            taken, number = self._waiting[0]
            if self._answered == number:
                self._answered = 0
                self._waiting.popleft()
                if not taken.done():
                    taken.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that was not answered."""
        self._fail(ConnectionError(str(exc or "Redis has closed the connection")))

    def _fail(self, error: Exception) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._transport.abort()
        for taken, _ in self._waiting:
            if not taken.done():
                taken.set_exception(error)
        self._waiting.clear()
        self._lost(error)


def _error_of(answer: bytes) -> Exception:
    text = answer.decode(errors="replace")
    if answer.startswith(_REFUSALS):
        return BrokerRefused(f"it refuses to publish ({text[1:]})")
    return ConnectionError(f"Redis answers {text!r} to a publication")
