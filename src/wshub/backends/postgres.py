"""The backend that connects workers through PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._driver import needing
from wshub.backends._options import MAX_PAYLOAD, PREFIX, PUBLISH_TIMEOUT, Options
from wshub.backends._supervisor import SupervisedBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("PostgresBackend",)


class PostgresBackend(SupervisedBackend):
    """
    Carries messages between workers through LISTEN and NOTIFY of PostgreSQL 15 or newer.

    At most once: what is published while a worker has lost the server does not reach its
    connections, and `BackendRegained` tells for how long that was. All workers see all messages
    in the order in which the server committed them. A message that does not fit into a
    notification, which has room for 7,999 bytes of ASCII or 5,999 of anything else, waits in a
    table for half a minute. Each worker has one connection that listens, and one or two in a pool,
    of which those that break idly are replaced; another pooler between them and the server must
    pool by session, not by transaction. Needs `pip install 'wshub[postgres]'`, and an event loop
    that watches sockets, which on Windows is `asyncio.SelectorEventLoop`.

    Args:
        url: `postgresql://user:password@host:5432/database`, and what else libpq reads, as
            `?sslmode=verify-full`. Of several hosts, separated by commas, the primary is used.
        prefix: Begins the name of every channel, and of the table: letters, digits, `_` and `-`.
            Apps that share a database, but not their messages, need different ones.
        publish_timeout: Seconds that a publication waits at most for a server that is away.
        max_payload: Bytes of the longest message, with its envelope.
        options: More of libpq's connection parameters, as `sslrootcert`; they may be in the query
            of the URL, too.

    Raises:
        ValueError: The URL or an option cannot be read.
        ImportError: psycopg or its pool is missing.
    """

    def __init__(
        self,
        url: str = "postgresql://localhost",
        *,
        prefix: str = PREFIX,
        publish_timeout: float = PUBLISH_TIMEOUT,
        max_payload: int = MAX_PAYLOAD,
        options: Mapping[str, str | int] | None = None,
    ) -> None:
        with needing("PostgresBackend", "postgres"):
            from wshub.backends._postgres_broker import PostgresBroker  # noqa: PLC0415  (an extra)

        broker = PostgresBroker(url, options or {}, prefix)
        super().__init__(broker, Options(prefix, publish_timeout, max_payload))
