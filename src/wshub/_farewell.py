"""The last frame of a connection, and the transport behind it."""

from __future__ import annotations

import asyncio
import logging
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


def free_later(clock: Clock, sink: Sink, grace: float, limit: float = 0) -> None:
    """
    Drop the transport of a peer that does not read what it was sent last within `grace` seconds.

    One that goes on reading has `limit` seconds for all of it.
    """
    unsent = sink.unsent_bytes
    if unsent:
        clock.call_later(grace, _free_unless_read, clock, sink, grace, limit - grace, unsent)


def _free_unless_read(clock: Clock, sink: Sink, grace: float, limit: float, unsent: int) -> None:
    if limit > 0 and sink.unsent_bytes < unsent:
        free_later(clock, sink, grace, limit)
    else:
        sink.abort()


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
