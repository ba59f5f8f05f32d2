"""How long those behind a connection may keep it."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

from wshub._clock import limit_time
from wshub.exceptions import CloseCode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from wshub._clock import Clock, Timer
    from wshub._tasks import TaskOwner
    from wshub.auth.principal import Principal

__all__ = ("Revalidation", "Tenure")

logger = logging.getLogger("wshub")

LONGEST_WAIT = 86_400.0
"""Seconds that one timer waits at most: event loops take no longer ones."""

SPREAD = 0.1
"""Part of the interval by which a revalidation may come early, so that not all come at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revalidation:
    """
    Asks now and then whether a user is still welcome, for as long as they are connected.

    Attributes:
        check: Given the principal, returns it, or a newer one of the same user, or None: then
            the connection closes with 3000. If it fails, that is logged, and the connection is
            kept until it is asked again.
        interval: Seconds between two questions, up to a tenth less.
        timeout: Seconds after which a question counts as failed.

    Raises:
        ValueError: A number is not positive.
    """

    check: Callable[[Principal], Awaitable[Principal | None]]
    interval: float = 1800.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            value = getattr(self, name)
            if not 0 < value < inf:
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


class _Connection(Protocol):
    """What a tenure needs of the connection that it is about."""

    id: str

    @property
    def principal(self) -> Principal | None:
        """Who is behind it."""
        ...

    def refresh(self, principal: Principal) -> None:
        """Go on with a newer principal."""
        ...


class _Link(Protocol):
    def start_closing(self, code: int, reason: str) -> object:
        """Close it without waiting."""
        ...


class _Hub(Protocol):
    clock: Clock
    tasks: TaskOwner
    revalidation: Revalidation | None


class Tenure:
    """Closes a connection when its principal expires, or is not confirmed any more."""

    __slots__ = ("_connection", "_end", "_expiry", "_hub", "_link", "_question", "_task")

    def __init__(self, connection: _Connection, link: _Link, hub: _Hub) -> None:
        self._connection = connection
        self._link = link
        self._hub = hub
        self._end = inf
        self._expiry: Timer | None = None
        self._question: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._ask_later()

    def renew(self, expires_at: float | None) -> None:
        """Go on until `expires_at`, or without an end."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if expires_at is not None:
            self._end = self._hub.clock.time() + expires_at - time.time()
            self._wait()

    def stop(self) -> None:
        """Let it be: the connection is over."""
        for timer in (self._expiry, self._question):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _wait(self) -> None:
        left = self._end - self._hub.clock.time()
        if left > 0:
            self._expiry = self._hub.clock.call_later(min(left, LONGEST_WAIT), self._wait)
        else:
            self._close("token expired")

    def _close(self, reason: str) -> None:
        logger.info("closing connection %s: %s", self._connection.id, reason)
        self._link.start_closing(CloseCode.UNAUTHORIZED, reason)

    def _ask_later(self) -> None:
        revalidation = self._hub.revalidation
        if revalidation is not None:
            seconds = revalidation.interval * (1 - SPREAD * random.random())  # noqa: S311  (spreads load)
            self._question = self._hub.clock.call_later(seconds, self._ask, revalidation)

    def _ask(self, revalidation: Revalidation) -> None:
        name = f"wshub revalidation of {self._connection.id}"
        self._task = self._hub.tasks.start(self._revalidate(revalidation), name=name)

    async def _revalidate(self, revalidation: Revalidation) -> None:
        principal = self._connection.principal
        assert principal is not None  # noqa: S101  (else there would be no tenure)
        try:
            async with limit_time(self._hub.clock, revalidation.timeout):
                confirmed = await revalidation.check(principal)
            if self._connection.principal is not principal:
                confirmed = principal  # the answer is about one that was refreshed meanwhile
            elif confirmed is not None:
                self._connection.refresh(confirmed)
        except Exception:
            logger.exception("cannot revalidate connection %s", self._connection.id)
            confirmed = principal
        self._task = None  # what follows may stop this tenure
        if confirmed is None:
            self._close("log in again")
        else:
            self._ask_later()
