"""A worker as an app is one: a manager, a real server, and clients; several fit into a test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.managed import ManagedApp, echo
from wshub import BackendLost, BackendRegained, ConnectionManager
from wshub.testing import connect, live_server, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from wshub import Event
    from wshub.backends import Backend
    from wshub.testing import Client, LiveServer


class Site:
    """
    One worker.

    Attributes:
        manager: Its manager.
        outages: What its backend reported.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.outages: list[BackendLost | BackendRegained] = []
        self.manager = ConnectionManager(backend=backend, hooks=[self._note])
        self.managed = ManagedApp(echo, self.manager)
        self._server: LiveServer

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Site, None]:
        """Serve, for the length of the block."""
        async with self.manager.lifespan(), live_server(self.managed.app) as self._server:
            yield self

    def connect(self, query: str = "") -> AbstractAsyncContextManager[Client]:
        """Connect a client, with `user=` and `room=` in the query."""
        return connect(f"{self._server.ws}/ws?{query}")

    async def has(self, number: int) -> None:
        """Wait until so many connections are registered and in their rooms."""
        await until(lambda: len(self.managed.opened) >= number)

    async def is_ready(self, timeout: float = 5) -> None:
        """Wait until its health says so: five seconds is what is promised."""
        await until(lambda: self.manager.health().ready, timeout)

    async def is_lost(self, timeout: float = 5) -> None:
        """Wait until its health says so."""
        await until(lambda: not self.manager.health().ready, timeout)

    async def reports(self, number: int) -> None:
        """Wait until it has reported so many losses and returns, all told."""
        await until(lambda: len(self.outages) >= number)

    def _note(self, event: Event) -> None:
        if isinstance(event, BackendLost | BackendRegained):
            self.outages.append(event)
