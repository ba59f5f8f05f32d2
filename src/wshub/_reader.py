"""The task that takes what comes in from servers that do not push it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from wshub._facade import payload_of
from wshub.exceptions import CloseCode

if TYPE_CHECKING:
    from starlette.types import Message as AsgiEvent
    from starlette.types import Receive

__all__ = ("read_events",)

logger = logging.getLogger("wshub")


class _Link(Protocol):
    """What is read for."""

    @property
    def name(self) -> str:
        """The connection's id."""
        ...

    def take(self, message: str | bytes) -> bool:
        """Take a message; False: none more before `wait_for_room()` returns."""
        ...

    async def wait_for_room(self) -> None:
        """Wait until it takes messages again."""
        ...

    def see_disconnect(self, event: AsgiEvent) -> None:
        """Take note of a `websocket.disconnect`."""
        ...

    def end_now(self, reason: str) -> None:
        """End it without a word to the peer, unless it is over."""
        ...


async def read_events(receive: Receive, link: _Link) -> None:
    """Read until the end, ahead of the handler as far as `link` takes it."""
    while True:
        try:
            event = await receive()
        except asyncio.CancelledError:
            link.end_now("reading was cancelled")
            raise
        except Exception as error:  # servers raise what they like for a dead peer
            logger.debug("%s failed to receive", link.name, exc_info=error)
            event = {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE}
        if event["type"] == "websocket.disconnect":
            link.see_disconnect(event)
            return
        if not link.take(payload_of(event)):
            await link.wait_for_room()
