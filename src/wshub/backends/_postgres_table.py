"""A table of ours, whose rows are of use for a while."""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING

from wshub.backends._broker import BrokerRefused
from wshub.backends._postgres_link import PostgresError
from wshub.backends._postgres_notification import quote_identifier, shorten

if TYPE_CHECKING:
    from wshub.backends._postgres_link import PostgresExecutor

__all__ = ("CLEANED", "PostgresTable")

CLEAN_INTERVAL = 10.0
"""Seconds between two looks at what has expired."""

CLEANED = 128
"""Rows that are deleted at once; no fewer than a statement adds."""

INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_COLUMN = "42703"


class PostgresTable:
    """
    Makes one table, and deletes what has expired in it.

    It is unlogged: a crash, or a change to another server, empties it. What was published before
    is of no use after that, and what was spent before cannot come back.

    Attributes:
        identifier: Its name, quoted.
    """

    def __init__(self, name: str, columns: bytes, expired: bytes) -> None:
        self._name = shorten(name)
        self.identifier = table = quote_identifier(self._name)
        create = b"CREATE UNLOGGED TABLE IF NOT EXISTS %b (%b)" % (table, columns)
        self._statement = create.decode()
        # Workers that start together would run into each other.
        digest = blake2b(table, digest_size=8).digest()
        lock = int.from_bytes(digest, "big", signed=True)
        self._create = b"SELECT pg_advisory_xact_lock(%d); %b" % (lock, create)
        self._look = (
            b"SELECT bool_and(has_table_privilege(to_regclass($1), privilege)) "
            b"FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege"
        )
        self._clean = (
            b"DELETE FROM %b WHERE id IN "
            b"(SELECT id FROM %b WHERE %b LIMIT %d FOR UPDATE SKIP LOCKED)"
        ) % (table, table, expired, CLEANED)
        self._clean_at = 0.0

    async def prepare(self, server: PostgresExecutor) -> None:
        """
        Create the table, if there is none, and see that it is ours.

        Raises:
            BrokerRefused: It cannot be created or used.
        """
        try:
            allowed = (await server.ask(self._look, self.identifier)).get_value(0, 0)
            if allowed is None:
                await server.ask(self._create)
            elif allowed == b"\0":
                raise BrokerRefused(
                    f"it refuses the table {self._name}; "
                    "GRANT SELECT, INSERT, UPDATE and DELETE to the user"
                )
            self._clean_at = 0.0
            await self.clean(server)
        except PostgresError as error:
            if error.code == INSUFFICIENT_PRIVILEGE:
                problem = (
                    f"it refuses to create a table; let its administrator do it: {self._statement}"
                )
                raise BrokerRefused(f"{problem} ({error})") from error
            if error.code == UNDEFINED_COLUMN:
                raise BrokerRefused(
                    f"it has a table {self._name} that is not ours; choose another prefix ({error})"
                ) from error
            raise

    async def clean(self, server: PostgresExecutor) -> None:
        """Delete some of the rows that have expired, if it is time to do so."""
        if time.monotonic() >= self._clean_at:
            deleted = await server.ask(self._clean)
            if deleted.command_tuples != CLEANED:  # or there may be more
                self._clean_at = time.monotonic() + CLEAN_INTERVAL
