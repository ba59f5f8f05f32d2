"""The table for payloads that do not fit into a notification."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from wshub.backends._broker import BrokerRefused
from wshub.backends._postgres_link import PostgresError
from wshub.backends._postgres_notification import quote_identifier, shorten

if TYPE_CHECKING:
    from wshub.backends._postgres_link import PostgresLink

__all__ = ("CLEAN_INTERVAL", "PostgresTable")

KEPT = 30
"""Seconds that rows are kept: a worker that is so far behind has long given up the connection."""

CLEAN_INTERVAL = 10.0
"""Seconds between two looks at what has expired."""

CLEANED = 128
"""Rows that are deleted at once; no fewer than a batch adds."""

INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_COLUMN = "42703"

PUBLISH = b"SELECT pg_notify(m->>0, m->>1) FROM json_array_elements($1) m"


class PostgresTable:
    """
    Statements about one table.

    It is unlogged: what it holds is of no use after a crash, which no notification survives.
    """

    def __init__(self, prefix: str) -> None:
        self.name = shorten(f"{prefix}_spilled")
        table = quote_identifier(self.name)
        definition = (
            b"(id uuid PRIMARY KEY, payload bytea NOT NULL, "
            b"published timestamptz NOT NULL DEFAULT now(), UNIQUE (published, id))"
        )
        create = b"CREATE UNLOGGED TABLE IF NOT EXISTS %b %b" % (table, definition)
        self._statement = create.decode()
        # Workers that start together would run into each other.
        digest = blake2b(table, digest_size=8).digest()
        lock = int.from_bytes(digest, "big", signed=True)
        self._create = b"SELECT pg_advisory_xact_lock(%d); %b" % (lock, create)
        self._look = (
            b"SELECT bool_and(has_table_privilege(to_regclass($1), privilege)) "
            b"FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege"
        )
        self._name = table
        self._insert = b"INSERT INTO %b (id, payload) VALUES " % table
        self._select = b"SELECT payload FROM %b WHERE id = $1" % table
        self._clean = (
            b"DELETE FROM %b WHERE id IN (SELECT id FROM %b "
            b"WHERE published < now() - interval '%d seconds' LIMIT %d FOR UPDATE SKIP LOCKED)"
        ) % (table, table, KEPT, CLEANED)

    async def prepare(self, link: PostgresLink) -> None:
        """
        Create the table, if there is none, and see that it is ours.

        Raises:
            BrokerRefused: It cannot be created or used.
        """
        try:
            allowed = (await link.ask(self._look, self._name)).get_value(0, 0)
            if allowed is None:
                await link.ask(self._create)
            elif allowed == b"\0":
                raise BrokerRefused(
                    f"it refuses the table {self.name}; "
                    "GRANT SELECT, INSERT, UPDATE and DELETE to the user"
                )
            await self.clean(link)
        except PostgresError as error:
            if error.code == INSUFFICIENT_PRIVILEGE:
                problem = (
                    f"it refuses to create a table; let its administrator do it: {self._statement}"
                )
                raise BrokerRefused(f"{problem} ({error})") from error
            if error.code == UNDEFINED_COLUMN:
                raise BrokerRefused(
                    f"it has a table {self.name} that is not ours; choose another prefix ({error})"
                ) from error
            raise

    def publication(self, rows: int) -> bytes:
        """
        Return a statement that inserts so many rows and publishes notifications, or does neither.

        Its values are the notifications, as JSON, then the key and the payload of each row.
        """
        if not rows:
            return PUBLISH
        places = b", ".join(
            b"($%d::uuid, $%d::bytea)" % (number, number + 1)
            for number in range(2, 2 * rows + 2, 2)
        )
        return b"WITH spilled AS (%b%b) %b" % (self._insert, places, PUBLISH)

    async def fetch(self, link: PostgresLink, key: bytes) -> bytes:
        """Return the payload of a row; raise LookupError if it has expired."""
        result = await link.ask(self._select, key)
        payload = result.get_value(0, 0) if result.ntuples else None
        if payload is None:
            raise LookupError(f"a message has expired in {self.name} before this worker read it")
        return payload

    async def clean(self, link: PostgresLink) -> bool:
        """Delete rows that have expired; return whether there may be more."""
        result = await link.ask(self._clean)
        return result.command_tuples == CLEANED
