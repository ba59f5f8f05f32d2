"""One connection to PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from psycopg import Error
from psycopg.pq import DiagnosticField, ExecStatus, Format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import AsyncConnection
    from psycopg.errors import Diagnostic
    from psycopg.pq.abc import PGresult

__all__ = ("PostgresError", "PostgresExecutor", "PostgresLink")

READ_AHEAD = 512
"""Notifications, of less than 8 KB each, that wait here; with so many, the server has to."""


class PostgresError(Exception):
    """
    An error that the server answers with.

    Attributes:
        code: Its SQLSTATE.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class PostgresExecutor(Protocol):
    """Executes statements, on one connection or another."""

    async def ask(self, statement: bytes, *values: bytes) -> PGresult:
        """Return the last answer; see `PostgresLink`."""
        ...


class PostgresLink:
    """
    Asks a server for answers, one at a time, and takes its notifications.

    It waits for libpq's socket by itself: psycopg, when it is cancelled, asks the server to
    cancel, and waits for its consent, which a server that is away never gives. After a failure,
    or a call that was cancelled, all that is left is `close()`.

    Attributes:
        connection: What it waits for.
    """

    __slots__ = (
        "_answer",
        "_arrival",
        "_arrived",
        "_failure",
        "_farewell",
        "_is_reading",
        "_lock",
        "_loop",
        "_pgconn",
        "_results",
        "_socket",
        "_watchers",
        "connection",
    )

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._socket = self._pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._watchers = 0
        self._is_reading = False
        self._answer: asyncio.Future[list[PGresult]] | None = None
        self._results: list[PGresult] = []
        self._arrival: asyncio.Future[None] | None = None
        self._arrived: deque[bytes] = deque()
        self._failure: Exception | None = None
        self._farewell: str | None = None
        connection.add_notice_handler(self._note)

    def close(self) -> None:
        """Drop the connection."""
        self._fail("the connection to PostgreSQL is closed")
        self._pgconn.finish()

    async def ask(self, statement: bytes, *values: bytes) -> PGresult:
        """
        Return the last answer to a statement, or to several without values.

        Values, and what is answered to a statement with some, are in PostgreSQL's binary format.
        Who listens has to `receive()` meanwhile: the answer comes behind what was notified before.

        Raises:
            PostgresError: An answer is an error.
        """
        async with self._lock:
            self._check()
            if values:
                formats = [Format.BINARY] * len(values)
                self._pgconn.send_query_params(statement, [*values], None, formats, Format.BINARY)
            else:
                self._pgconn.send_query(statement)
            self._results = []
            self._answer = self._loop.create_future()
            self._watch()
            try:
                self._flush()
                results = await self._answer
            finally:
                self._answer = None
                self._unwatch()
        return _last_of(results)

    async def receive(self) -> bytes:
        """
        Return the payload of the next notification.

        The socket is read only while nothing else is left: a server that sends faster than we
        take keeps the rest.
        """
        while not self._arrived:
            self._check()
            self._arrival = self._loop.create_future()
            self._watch()
            try:
                await self._arrival
            finally:
                self._arrival = None
                self._unwatch()
        notification = self._arrived.popleft()
        self._choose()
        return notification

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        self._watchers += 1
        self._choose()

    def _unwatch(self) -> None:
        self._watchers -= 1
        self._choose()

    def _choose(self) -> None:
        """Read the socket while somebody waits for it, but not more than is taken."""
        has_room = len(self._arrived) < READ_AHEAD and self._failure is None
        is_reading = self._watchers > 0 and has_room
        if is_reading == self._is_reading:
            return
        self._is_reading = is_reading
        if is_reading:
            self._loop.add_reader(self._socket, self._attend, self._read)
        else:
            self._loop.remove_reader(self._socket)

    def _attend(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Error as error:
            self._fail(str(error).partition("\n")[0])

    def _flush(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._attend, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        self._pgconn.consume_input()
        self._take_notifications()
        if self._answer is not None:
            self._take_results(self._answer)
            self._take_notifications()
        self._choose()

    def _take_notifications(self) -> None:
        while (notification := self._pgconn.notifies()) is not None:
            self._arrived.append(notification.extra)
        if self._arrived and self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _take_results(self, answer: asyncio.Future[list[PGresult]]) -> None:
        while not answer.done() and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                answer.set_result(self._results)
            else:
                self._results.append(result)

    def _note(self, notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "FATAL":
            self._farewell = notice.message_primary

    def _fail(self, problem: str) -> None:
        if self._failure is not None:
            return
        self._failure = ConnectionError(self._farewell or problem)
        self._choose()
        self._loop.remove_writer(self._socket)
        for waiter in (self._answer, self._arrival):
            if waiter is not None and not waiter.done():
                waiter.set_exception(self._failure)


def _last_of(results: Sequence[PGresult]) -> PGresult:
    """Return the last of some answers; raise the first that is an error."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            code = result.error_field(DiagnosticField.SQLSTATE) or b""
            message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b""
            raise PostgresError(code.decode(), message.decode(errors="replace"))
    return results[-1]
