"""The connections to PostgreSQL that execute statements, in psycopg's pool."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Self, cast

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from wshub.backends._deadline import Limit
from wshub.backends._postgres_link import CLOSED, PostgresLink

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

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
        self._given: set[_PooledConnection] = set()
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
        given, self._given = self._given, set()
        for connection in given:
            connection.link.close()
        if pool is not None:
            await pool.close(CLOSING)

    async def ask(self, statement: bytes, *values: bytes) -> PGresult:
        """
        Return the last answer to a statement, or to several without values; see `PostgresLink`.

        Raises:
            BrokerRefused: There is no connection, as the server objects to something.
            ConnectionError: There is none, or it has broken meanwhile.
            PostgresError: An answer is an error.
        """
        pool = cast("AsyncConnectionPool[_PooledConnection]", self._pool)
        try:
            async with Limit(WAITING):
                connection = await pool.getconn()
        except TimeoutError as error:
            raise self._failure or error from None
        self._given.add(connection)
        answer = await connection.link.ask(statement, *values)
        self._given.remove(connection)
        await pool.putconn(connection)
        return answer

    async def connect(self, connect: Connect) -> PostgresLink:
        """Connect for the pool, which cannot be told to stop, and keeps its reasons to itself."""
        connecting = asyncio.create_task(self._servers.connect(connect), name="wshub connects")
        self._connecting.add(connecting)
        self._failure = None
        try:
            (outcome,) = await asyncio.gather(connecting, return_exceptions=True)
        finally:
            self._connecting.remove(connecting)
        if isinstance(outcome, PostgresLink):
            return outcome
        # A cancellation would end a task of the pool, and closing with it.
        self._failure = outcome if isinstance(outcome, Exception) else ConnectionError(CLOSED)
        raise self._failure


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
