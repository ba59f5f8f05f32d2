"""Which channels are wanted, and which are subscribed to: they differ while a server is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    Change = Callable[[Sequence[str]], Coroutine[object, object, None]]

__all__ = ("Subscriptions",)

BATCH = 512
"""Channels that are subscribed to in one call."""


class Subscriptions:
    """
    Makes what is subscribed follow what is wanted, one change at a time.

    What is wanted may change at any moment, by synchronous calls, also while there is no server;
    a channel that is wanted, given up and wanted again meanwhile is looked at once. `follow()` is
    the only one to change what is subscribed, so churn cannot leave the two apart.
    """

    __slots__ = ("_changed", "_stirred", "_subscribed", "_waiters", "_wanted")

    def __init__(self) -> None:
        self._wanted: set[str] = set()
        self._subscribed: set[str] = set()
        self._changed: dict[str, None] = {}
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._stirred: asyncio.Event | None = None

    def want(self, channel: str) -> None:
        """Subscribe to `channel` soon, and again after each `reset()`."""
        self._wanted.add(channel)
        self._stir(channel)

    def give_up(self, channel: str) -> None:
        """Do not want `channel` any longer."""
        self._wanted.discard(channel)
        self._release(channel)
        self._stir(channel)

    async def in_effect(self, channel: str) -> None:
        """Wait until `channel` is subscribed to, is given up, or `reset()` is called."""
        if self._stirred is None or channel in self._subscribed or channel not in self._wanted:
            return
        waiter = self._waiters.get(channel)
        if waiter is None:
            waiter = self._waiters[channel] = asyncio.get_running_loop().create_future()
        await asyncio.wait({waiter})

    def reset(self) -> None:
        """There is no server any more, and so nothing is subscribed, or will be soon."""
        self._stirred = None
        self._subscribed.clear()
        for channel in list(self._waiters):
            self._release(channel)

    def begin(self) -> None:
        """There is a new server: `follow()` has to subscribe to all that is wanted."""
        self._stirred = asyncio.Event()
        self._changed = dict.fromkeys(self._wanted)

    async def follow(self, subscribe: Change, unsubscribe: Change) -> None:
        """
        Do what has changed before, since the last call or since `begin()`.

        What changes meanwhile is left for the next call: it may never cease to change.
        """
        changed, self._changed = list(self._changed), {}
        wanted = [name for name in changed if name in self._wanted]
        missing = [name for name in wanted if name not in self._subscribed]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            await subscribe(batch)
            self._subscribed.update(batch)
            for channel in batch:
                self._release(channel)
        # Only now is it looked at what is not wanted: it may have changed meanwhile, and is
        # then among the changes of the next call, too.
        subscribed = [name for name in changed if name in self._subscribed]
        surplus = [name for name in subscribed if name not in self._wanted]
        for start in range(0, len(surplus), BATCH):
            batch = surplus[start : start + BATCH]
            self._subscribed.difference_update(batch)
            await unsubscribe(batch)

    async def change(self) -> None:
        """Wait until `follow()` has something to do. Called between `begin()` and `reset()`."""
        assert self._stirred is not None  # noqa: S101
        self._stirred.clear()
        if not self._changed:
            await self._stirred.wait()

    def _stir(self, channel: str) -> None:
        if self._stirred is not None:
            self._changed[channel] = None
            self._stirred.set()

    def _release(self, channel: str) -> None:
        waiter = self._waiters.pop(channel, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
