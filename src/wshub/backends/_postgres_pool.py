"""The connections to PostgreSQL that execute statements, in psycopg's pool."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Self, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from wshub.backends._broker import NothingSent
from wshub.backends._deadline import Limit
from wshub.backends._problem import describe

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from wshub.backends._postgres_link import PostgresLink
    from wshub.backends._postgres_servers import Connect, PostgresServers

__all__ = ("PostgresPool",)

SIZE = 2
"""Connections at most: a broker publishes, and fetches what is long, one at a time each."""

WAITING = 1.5
"""Seconds to wait for a connection; fewer than a server has for an answer, to say why."""

CLOSING = 0.5
"""Seconds that the pool's tasks have to end."""


class PostgresPool:
    """
    Executes statements on as many connections as it takes, and replaces those that break idly.

    The pool gives connections out, and a `PostgresLink` waits for their answers, as it can leave a
    server that stands still. After a failure, or a call that was cancelled, all that is left is
    `close()`; after that it may be opened again.
    """

    def __init__(self, servers: PostgresServers) -> None:
        self._servers = servers
        self._pool: AsyncConnectionPool[_PooledConnection] | None = None
        self._connecting: set[asyncio.Task[PostgresLink]] = set()
        self._made: set[PostgresLink] = set()
        self._given = 0
        self._failure: Exception | None = None

    async def open(self) -> None:
        """Connect when that is first needed, from now on."""
        self._pool = AsyncConnectionPool(
            connection_class=_PooledConnection,
            kwargs={"pool": self},
            min_size=0,  # or it would begin with two, for whoever asks while it makes the first
            max_size=SIZE,
            open=False,
            check=_check,
            name="wshub",
            max_lifetime=math.inf,  # one that works is kept: there may be no room for another
        )
        await self._pool.open()

    async def close(self) -> None:
        """Drop all connections, also those that execute something. Idempotent."""
        pool, self._pool = self._pool, None
        for connecting in self._connecting:
            connecting.cancel()
        # Not left to the pool: one that is just being given out, or taken back, would be forgotten.
        for link in self._held():
            link.close()
        self._made.clear()
        if pool is not None:
            await pool.close(CLOSING)

    async def ask(self, statement: bytes, *values: bytes) -> PGresult:
        """
        Return the last answer to a statement, or to several without values; see `PostgresLink`.

        Raises:
            NothingSent: There is no connection, and none can be made.
            ConnectionError: It has broken meanwhile.
            PostgresError: An answer is an error.
        """
        pool = cast("AsyncConnectionPool[_PooledConnection]", self._pool)
        try:
            async with Limit(WAITING):
                connection = await pool.getconn()
        except TimeoutError as error:
            # If others have one, that is waited for, whatever became of an attempt to make more.
            cause = error if self._given else self._failure or error
            raise NothingSent(describe(cause)) from cause
        self._given += 1
        try:
            answer = await connection.link.ask(statement, *values)
        finally:
            self._given -= 1
        await pool.putconn(connection)
        return answer

    async def connect(self, connect: Connect) -> PostgresLink:
        """Connect for the pool, which cannot be told to stop, and keeps its reasons to itself."""
        connecting = asyncio.create_task(self._servers.connect(connect), name="wshub connects")
        self._connecting.add(connecting)
        self._failure = None
        try:
            link = await connecting
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._connecting.remove(connecting)
        self._made = {*self._held(), link}
        return link

    def _held(self) -> list[PostgresLink]:
        """Return what was made, and the pool has not closed: that socket may be another's now."""
        return [link for link in self._made if not link.connection.closed]


class _PooledConnection(AsyncConnection[TupleRow]):
    """
    A connection that `PostgresPool` makes.

    Attributes:
        link: Waits for its answers.
    """

    link: PostgresLink

    @classmethod
    async def connect(cls, *_: object, **options: object) -> Self:
        link = await cast("PostgresPool", options["pool"]).connect(super().connect)
        connection = cast("Self", link.connection)
        connection.link = link
        return connection


async def _check(connection: AsyncConnection[TupleRow]) -> None:
    """Raise psycopg's error if the server has ended a connection, without asking it."""
    # First comes what it says at the end, then the end.
    for _ in range(2):
        connection.pgconn.consume_input()
