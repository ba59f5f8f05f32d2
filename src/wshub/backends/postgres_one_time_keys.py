"""Keys that are worth something once, for all workers, in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._driver import needing
from wshub.backends._options import PREFIX
from wshub.backends._stored_one_time_keys import TIMEOUT, StoredOneTimeKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PostgresOneTimeKeys",)


class PostgresOneTimeKeys(StoredOneTimeKeys):
    """
    Keeps one-time keys in PostgreSQL 15 or newer, for `Tickets` of all workers.

    A key is taken by one worker, whoever else asks at the same instant. It connects when it is
    first needed, and again after an outage; each worker has one connection. Needs
    `pip install 'wshub[postgres]'`, and an event loop as `PostgresBackend` does.

    Args:
        url: As of `PostgresBackend`.
        prefix: Begins the name of the table, `wshub_once`, which is made if it is not there.
        timeout: Seconds that the server has for an answer.
        options: More of libpq's connection parameters, as `sslrootcert`.

    Raises:
        ValueError: The URL or an option cannot be read, or `timeout` is not positive.
        ImportError: psycopg is missing.
    """

    def __init__(
        self,
        url: str = "postgresql://localhost",
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        options: Mapping[str, str | int] | None = None,
    ) -> None:
        with needing("PostgresOneTimeKeys", "postgres"):
            from wshub.backends._postgres_store import PostgresStore  # noqa: PLC0415  (an extra)

        super().__init__(PostgresStore(url, options or {}, prefix), prefix, timeout)
