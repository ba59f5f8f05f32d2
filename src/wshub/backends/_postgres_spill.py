"""The payloads that do not fit into a notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._postgres_table import PostgresTable

if TYPE_CHECKING:
    from wshub.backends._postgres_link import PostgresExecutor

__all__ = ("PostgresSpill",)

KEPT = 30
"""Seconds that rows are kept: a worker that is so far behind has long given up the connection."""

COLUMNS = (
    b"id uuid PRIMARY KEY, payload bytea NOT NULL, "
    b"published timestamptz NOT NULL DEFAULT now(), UNIQUE (published, id)"
)

PUBLISH = b"SELECT pg_notify(m->>0, m->>1) FROM json_array_elements($1) m"


class PostgresSpill:
    """
    Statements about the table in which they wait.

    Attributes:
        table: The table.
    """

    def __init__(self, prefix: str) -> None:
        expired = b"published < now() - interval '%d seconds'" % KEPT
        self.table = PostgresTable(f"{prefix}_spilled", COLUMNS, expired)
        self._insert = b"INSERT INTO %b (id, payload) VALUES " % self.table.identifier
        self._select = b"SELECT payload FROM %b WHERE id = $1" % self.table.identifier

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

    async def fetch(self, server: PostgresExecutor, key: bytes) -> bytes | None:
        """Return the payload of a row; None: there is none, or no longer."""
        result = await server.ask(self._select, key)
        return result.get_value(0, 0) if result.ntuples else None
