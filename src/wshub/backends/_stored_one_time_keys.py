"""Keys that are worth something once, kept by a server that may be away."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from wshub.backends._deadline import Limit
from wshub.backends._options import Options
from wshub.backends._problem import describe
from wshub.exceptions import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("OneTimeStore", "StoredOneTimeKeys")

TIMEOUT = 2.0
MAX_TTL = 366 * 86_400.0
CLOSING = 1.0
"""Seconds that a store has to drop its connection."""

Answer = TypeVar("Answer")


class OneTimeStore(Protocol):
    """
    A server that keeps values under keys.

    It is asked one thing at a time. After a failure, or a call that was cancelled, it is closed,
    and may be connected again. Its methods raise what they like.
    """

    async def connect(self) -> None:
        """Connect."""
        ...

    async def put(self, key: str, value: bytes, milliseconds: int) -> bool:
        """Keep a value for some time; False: there is one already."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Return a value, to one caller only, and keep it no longer; None: there is none."""
        ...

    async def close(self) -> None:
        """Drop the connection, promptly. Idempotent."""
        ...


class StoredOneTimeKeys:
    """
    Keeps one-time keys in a server, for `Tickets` of all workers.

    A key is taken by one worker, whoever else asks at the same instant: the server sees to that.
    It connects when it is first needed, and again after an outage. All methods belong to one
    event loop until `stop()`.
    """

    def __init__(
        self, store: OneTimeStore, prefix: str, timeout: float, max_ttl: float = MAX_TTL
    ) -> None:
        Options(prefix).check()
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        self._store = store
        self._prefix = prefix
        self._timeout = timeout
        self._max_ttl = max_ttl
        self._connected = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} prefix={self._prefix!r}>"

    async def put(self, key_hash: str, value: str, ttl: float) -> None:
        """
        Keep `value` under a key that is new, for `ttl` seconds.

        May be cancelled; then it is kept, or not.

        Raises:
            BackendUnavailable: It cannot be kept now. It may have been kept nevertheless.
            ValueError: The key is there already, or `ttl` is not positive, or too long.
        """
        if not 0 < ttl <= self._max_ttl:
            raise ValueError(
                f"ttl must be positive and at most {self._max_ttl:g} seconds, not {ttl!r}"
            )
        data, milliseconds = value.encode(), math.ceil(ttl * 1000)
        is_new, again = await self._ask(lambda: self._store.put(key_hash, data, milliseconds))
        # What is there at the second attempt may be what the first one left.
        if not is_new and not again:
            raise ValueError("this key is there already; keys are random and used once")

    async def take(self, key_hash: str) -> str | None:
        """
        Return what is kept under a key, and keep it no longer; None if there is nothing.

        May be cancelled; then it is kept, or not.

        Raises:
            BackendUnavailable: It cannot be asked now. The key may be spent nevertheless.
        """
        value, _ = await self._ask(lambda: self._store.take(key_hash))
        return None if value is None else value.decode(errors="replace")

    async def stop(self) -> None:
        """Drop the connection; it is made again if it is needed. Idempotent."""
        async with self._turn:
            await self._drop()

    async def _ask(self, request: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """Return the server's answer, and whether it was asked for the second time."""
        try:
            async with Limit(self._timeout), self._turn:
                was_connected = self._connected
                try:
                    return await self._try(request), False
                except Exception:  # drivers raise what they like
                    if not was_connected:
                        raise
                # The connection had gone since it was last used.
                return await self._try(request), True
        except Exception as error:
            raise BackendUnavailable(type(self).__name__, describe(error)) from error

    async def _try(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            if not self._connected:
                await self._store.connect()
                self._connected = True
            return await request()
        except BaseException:
            await self._drop()  # an answer may be under way, and would be taken for another's
            raise

    async def _drop(self) -> None:
        self._connected = False
        with suppress(Exception):  # it is broken already
            async with asyncio.timeout(CLOSING):
                await self._store.close()
