"""PostgreSQL as a store of one-time keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wshub.backends._postgres_servers import PostgresServers
from wshub.backends._postgres_table import PostgresTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wshub.backends._postgres_link import PostgresLink

__all__ = ("PostgresStore",)

COLUMNS = b"id text PRIMARY KEY, value bytea NOT NULL, ends timestamptz NOT NULL, UNIQUE (ends, id)"


class PostgresStore:
    """Keeps a row for each key. Of two that delete it, the server lets one find it."""

    def __init__(self, url: str, options: Mapping[str, str | int], prefix: str) -> None:
        self._servers = PostgresServers(url, options)
        self._table = PostgresTable(f"{prefix}_once", COLUMNS, b"ends <= now()")
        table = self._table.identifier
        # What has expired, and is not deleted yet, is in nobody's way.
        self._insert = (
            b"INSERT INTO %b AS kept (id, value, ends) "
            b"VALUES ($1::text, $2::bytea, now() + $3::bigint * interval '1 millisecond') "
            b"ON CONFLICT (id) DO UPDATE SET value = excluded.value, ends = excluded.ends "
            b"WHERE kept.ends <= now()"
        ) % table
        self._delete = b"DELETE FROM %b WHERE id = $1::text RETURNING value, ends > now()" % table
        self._link: PostgresLink | None = None

    async def connect(self) -> None:
        """Connect, and see to the table."""
        try:
            self._link = await self._servers.connect()
            await self._table.prepare(self._link)
        except BaseException:
            self._servers.turn()
            raise

    async def put(self, key: str, value: bytes, milliseconds: int) -> bool:
        """Keep a value for some time; False: there is one already."""
        link = cast("PostgresLink", self._link)
        await self._table.clean(link)
        duration = milliseconds.to_bytes(8, "big")
        return (await link.ask(self._insert, key.encode(), value, duration)).command_tuples == 1

    async def take(self, key: str) -> bytes | None:
        """Return a value, to one caller only, and keep it no longer; None: there is none."""
        found = await cast("PostgresLink", self._link).ask(self._delete, key.encode())
        is_kept = found.ntuples and found.get_value(0, 1) == b"\1"
        return found.get_value(0, 0) if is_kept else None

    async def close(self) -> None:
        """Drop the connection. Idempotent."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
