"""Probes: what a worker sends to itself, to see whether it hears what is published."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from wshub._wire import Probe, write_envelope
from wshub.backends._deadline import Limit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wshub.backends._outgoing import Outgoing, Outgoings

__all__ = ("Probes",)


class Probes:
    """
    Sends probes, one through each server, and waits for all to come back.

    Attributes:
        received: Whatever has arrived so far, to be counted by who receives it.
    """

    def __init__(self, outgoings: Outgoings) -> None:
        self.received = 0
        self._outgoings = outgoings
        self._missing: set[str] = set()
        self._all_heard = asyncio.Event()

    def hear(self, probe: Probe) -> None:
        """Take note of a probe that has arrived, of this worker or of another."""
        self._missing.discard(probe.id)
        if not self._missing:
            self._all_heard.set()

    async def send(self, channels: Iterable[str], patience: float) -> None:
        """
        Send a probe to each channel, and wait until all were heard.

        They overtake what waits to be published, but not what is on its way. The server has
        `patience` seconds from when they are sent, and again while it is heard of otherwise.

        Raises:
            TimeoutError: One was not heard within that, or a multiple of `patience` in all.
        """
        token, self._all_heard = secrets.token_hex(4), asyncio.Event()
        probes = {f"{token}.{number}": name for number, name in enumerate(channels)}
        self._missing = set(probes)
        outgoings = [self._put(name, channel) for name, channel in probes.items()]
        try:
            # That takes no longer than the batch before them, which has a limit of its own.
            await self._outgoings.all_sent(outgoings)
            async with Limit(patience, lambda: self.received):
                await self._all_heard.wait()
        except TimeoutError:
            raise TimeoutError("what is published does not come back") from None
        finally:
            for outgoing in outgoings:
                self._outgoings.withdraw(outgoing)

    def _put(self, name: str, channel: str) -> Outgoing:
        outgoing = self._outgoings.put_first(channel, write_envelope(Probe(name)))
        # Nobody waits for it: that the server is lost is told elsewhere.
        outgoing.taken.add_done_callback(lambda taken: taken.exception())
        return outgoing
