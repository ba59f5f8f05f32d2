"""PostgreSQL as a broker: its LISTEN and NOTIFY."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, cast

from wshub.backends._postgres_notification import (
    Spilled,
    quote_identifier,
    read_notification,
    shorten,
    write_notification,
    write_reference,
)
from wshub.backends._postgres_pool import PostgresPool
from wshub.backends._postgres_servers import PostgresServers
from wshub.backends._postgres_spill import PostgresSpill

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wshub.backends._postgres_link import PostgresLink

__all__ = ("PostgresBroker",)


class PostgresBroker:
    """
    Listens on one connection, and publishes on those of a pool.

    Notifications have the order in which their transactions commit, for all who listen. A payload
    that needs a row is in the transaction of its notification, so the row is there when it comes.
    """

    def __init__(self, url: str, options: Mapping[str, str | int], prefix: str) -> None:
        self._servers = PostgresServers(url, options)
        self._spill = PostgresSpill(prefix)
        self._listening: PostgresLink | None = None
        self._pool = PostgresPool(self._servers)

    async def connect(self) -> None:
        """Connect, and see to the table."""
        try:
            self._listening = await self._servers.connect()
            await self._pool.open()
            await self._spill.table.prepare(self._pool)
        except BaseException:
            self._servers.turn()
            raise

    def spread(self, channel: str) -> Sequence[str]:
        """Return the channel that is given: there is one server."""
        return [channel]

    async def close(self) -> None:
        """Drop all connections."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        await self._pool.close()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads in one transaction."""
        await self._spill.table.clean(self._pool)
        notifications: list[tuple[str, str]] = []
        rows: list[bytes] = []
        for number, (channel, payload) in enumerate(messages):
            text = write_notification(number, payload)
            if text is None:
                key = secrets.token_bytes(16)
                rows += (key, payload)
                text = write_reference(number, key)
            notifications.append((shorten(channel), text))
        statement = self._spill.publication(len(rows) // 2)
        await self._pool.ask(statement, json.dumps(notifications).encode(), *rows)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Listen on channels."""
        await self._change(b"LISTEN", channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Listen no more."""
        await self._change(b"UNLISTEN", channels)

    async def receive(self) -> bytes:
        """Return the payload of the next notification; what is none of ours, as it is."""
        text = await cast("PostgresLink", self._listening).receive()
        payload = read_notification(text)
        if not isinstance(payload, Spilled):
            return payload
        # Not on the connection that listens: it would have to read all that has come first.
        fetched = await self._spill.fetch(self._pool, payload.key)
        # A row of ours is there for longer than a worker that is behind keeps its connection: where
        # there is none, somebody else made it up, who should not be able to end the connection.
        return text if fetched is None else fetched

    async def _change(self, verb: bytes, channels: Sequence[str]) -> None:
        statements = [verb + b" " + quote_identifier(shorten(channel)) for channel in channels]
        await cast("PostgresLink", self._listening).ask(b"; ".join(statements))
