"""The goodbye to everyone: all at once at the end, or spread out so that nobody storms back."""

from __future__ import annotations

import asyncio
import random
from math import inf
from typing import TYPE_CHECKING

from wshub._clock import limit_time, sleep
from wshub.exceptions import CloseCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wshub._hub import Hub
    from wshub.connection import Connection

__all__ = ("close_connections", "drain_connections", "say_goodbye")

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that a shutdown gives connections to close, and again tasks to end."""

RETRY_JITTER = 5.0
"""Seconds over which clients come back after a shutdown, as far as they do as they are told."""

GOODBYES_PER_TURN = 64
"""Close frames written before the event loop gets a turn."""


async def drain_connections(hub: Hub, *, timeout: float, jitter: float) -> None:
    """Refuse new connections and close all others, spread over `jitter` seconds."""
    if not 0 < timeout < inf:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if not 0 <= jitter < inf:
        raise ValueError(f"jitter must be a number of seconds, 0 or more, not {jitter!r}")
    before, hub.stopping = hub.stopping, True
    try:
        # The last to be told have as much time again to take what is queued for them.
        spread = min(jitter, timeout / 2)
        await _say_goodbyes(hub, timeout=timeout, spread=spread, jitter=jitter)
    except asyncio.CancelledError:
        hub.stopping = before
        raise


async def close_connections(hub: Hub) -> None:
    """Close every connection at once, then end every task; both within a deadline."""
    hub.stopping = True  # the handshakes that come meanwhile are refused
    try:
        await _say_goodbyes(hub, timeout=SHUTDOWN_TIMEOUT, spread=0, jitter=RETRY_JITTER)
        await hub.tasks.stop(timeout=SHUTDOWN_TIMEOUT)
    finally:
        hub.stopping = False


def say_goodbye(connection: Connection, *, jitter: float = RETRY_JITTER) -> None:
    """Close `connection` without waiting, and tell its client when to come back."""
    delay = random.uniform(0, jitter)  # noqa: S311  (no secret: it spreads the load)
    reason = f"shutting down; retry-after={delay:.1f}"
    connection._link.start_closing(CloseCode.SERVICE_RESTART, reason)


async def _say_goodbyes(hub: Hub, *, timeout: float, spread: float, jitter: float) -> None:
    connections = hub.registry.find("everyone")
    try:
        async with limit_time(hub.clock, timeout):
            await _start_closing(hub, connections, spread=spread, jitter=jitter)
            for connection in connections:
                await connection._link.said_farewell()
    except TimeoutError:
        for connection in connections:
            connection.abort()


async def _start_closing(
    hub: Hub, connections: Iterable[Connection], *, spread: float, jitter: float
) -> None:
    waiting = list(connections)
    pause = spread / len(waiting) if waiting else 0
    start = hub.clock.time()
    for number, connection in enumerate(waiting):
        early = start + number * pause - hub.clock.time()
        if connection.closed is not None:
            continue
        if early > 0:
            await sleep(hub.clock, early)
        elif number % GOODBYES_PER_TURN == 0:
            await asyncio.sleep(0)
        say_goodbye(connection, jitter=jitter)
