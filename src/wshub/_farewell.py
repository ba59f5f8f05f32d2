"""The last frame of a connection, and the transport behind it."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from wshub._clock import limit_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from wshub._clock import Clock
    from wshub._outbox import Outbox
    from wshub._sink import Sink
    from wshub._tasks import TaskOwner
    from wshub.exceptions import ClosedBy

__all__ = ("Closure", "free_later", "say_farewell")

logger = logging.getLogger("wshub")


class Closure(NamedTuple):
    """How a connection ended: the arguments of `ConnectionClosed`."""

    code: int
    reason: str
    by: ClosedBy


class _Hub(Protocol):
    """What a farewell needs of the manager it belongs to."""

    clock: Clock
    tasks: TaskOwner


def say_farewell(
    hub: _Hub,
    outbox: Outbox,
    sink: Sink,
    name: str,
    closure: Closure,
    limit: float,
    stop_reading: Callable[[], None],
) -> asyncio.Task[None] | None:
    """
    Write the close frame now if nothing waits before it; the handler may be at its end.

    Where a close waits for that, reading stops.

    Returns:
        The task that goes on with it, for at most `limit` seconds, or None if it is done.
    """
    rest = None
    if not outbox.messages:
        try:
            rest = sink.close(closure.code, closure.reason)
        except (Exception, asyncio.CancelledError) as error:  # the server's, not the caller's
            logger.debug("%s left before its close frame", name, exc_info=error)
            free_later(hub.clock, sink, limit)
            return None
        if rest is None:
            free_later(hub.clock, sink, limit)
            return None
    farewell = _write_farewell(hub.clock, outbox, sink, name, closure, limit, stop_reading, rest)
    return hub.tasks.start(farewell, name=f"wshub close {name}")


def free_later(clock: Clock, sink: Sink, limit: float, patience: float = inf) -> None:
    """
    Drop the transport of a peer that does not read what it was sent last.

    It has `limit` seconds, as long as it goes on reading: not `patience` seconds without.
    """
    # The server may write its own last frame after it has said that it is the end.
    call_soon = asyncio.get_running_loop().call_soon
    call_soon(_free, clock, sink, clock.time() + limit, patience, inf)


def _free(clock: Clock, sink: Sink, end: float, patience: float, before: float) -> None:
    unsent, left = sink.unsent_bytes, end - clock.time()
    if unsent and (left <= 0 or (unsent >= before and sink.shows_progress)):
        sink.abort()
    elif unsent:
        clock.call_later(min(left, patience), _free, clock, sink, end, patience, unsent)


async def _write_farewell(
    clock: Clock,
    outbox: Outbox,
    sink: Sink,
    name: str,
    closure: Closure,
    limit: float,
    stop_reading: Callable[[], None],
    rest: asyncio.Future[None] | None,
) -> None:
    try:
        async with limit_time(clock, limit):
            if rest is None:
                await outbox.drained()
                rest = sink.close(closure.code, closure.reason)
            if rest is not None:
                if not sink.closes_while_read:
                    stop_reading()
                # Cancelled, a server may begin a wait of its own: the transport has to go first.
                await asyncio.wait({rest})
                rest.result()
        free_later(clock, sink, limit)
    except (TimeoutError, asyncio.CancelledError):
        outbox.discard()
        sink.abort()
        if rest is not None:
            rest.add_done_callback(_look_at)
            rest.cancel()
    except Exception as error:  # servers raise what they like for a dead peer
        logger.debug("%s left before its close frame", name, exc_info=error)
        free_later(clock, sink, limit)


def _look_at(write: asyncio.Future[None]) -> None:
    """Take note of what a write raised that was given up: it concerns nobody."""
    if not write.cancelled():
        write.exception()
