"""The JetStream stream that puts all messages of a prefix into one order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wshub.backends._broker import BrokerRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wshub.backends._nats_link import NatsLink

__all__ = ("NatsStream",)

MAX_AGE = 1_000_000_000
"""Nanoseconds after which the last message is forgotten, too."""

NO_STREAM = 10059
"""JetStream's code for a stream that does not exist."""

FORBIDDEN = (10039, 10076)
"""Its codes for an account, or a server, that has no JetStream."""

PLAIN = "or do without one order for all workers: ordered=False"


class NatsStream:
    """
    Takes every message in, and publishes it again.

    Without it each worker hears two publishers in an order of its own: a server passes on what
    comes on one connection independently of others. What a stream has taken it publishes from one
    place, to all in the same order. It keeps the last message, in memory, and that for a second.

    Whoever wants other settings, as more replicas, makes the stream before we do.
    """

    def __init__(self, prefix: str) -> None:
        self._name = f"{prefix}-order"
        self._incoming = f"{prefix}.publish.>"
        self._outgoing = f"{prefix}.deliver.>"

    async def find(self, link: NatsLink) -> None:
        """
        Make the stream, unless it is there.

        Raises:
            BrokerRefused: There is no JetStream, or a stream of this name does something else.
            ConnectionError: It cannot be made now.
        """
        found = await self._ask(link, "INFO")
        if found.get("error", {}).get("err_code") == NO_STREAM:
            settings = {
                "name": self._name,
                "subjects": [self._incoming],
                "republish": {"src": self._incoming, "dest": self._outgoing},
                "storage": "memory",
                "retention": "limits",
                "discard": "old",
                "max_msgs": 1,
                "max_age": MAX_AGE,
                "num_replicas": 1,
            }
            found = await self._ask(link, "CREATE", json.dumps(settings).encode())
        error = found.get("error")
        if error is not None:
            problem = f"JetStream says: {error.get('description')}"
            if error.get("err_code") in FORBIDDEN:
                raise BrokerRefused(f"{problem}; enable it, {PLAIN}")
            raise ConnectionError(problem)
        config = found["config"]
        republished: dict[str, str] = config.get("republish", {})
        if self._incoming not in config["subjects"] or republished.get("dest") != self._outgoing:
            raise BrokerRefused(
                f"its stream {self._name} does not publish {self._incoming} to {self._outgoing}; "
                "delete it, or use another prefix"
            )

    async def publish(self, link: NatsLink, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads; return once the stream has taken all."""
        for answer in await link.ask(messages):
            if not answer:
                raise ConnectionError(f"the stream {self._name} is gone")
            if b'"error"' in answer:
                raise ConnectionError(f"the stream {self._name} took nothing: {answer.decode()}")

    async def _ask(self, link: NatsLink, verb: str, body: bytes = b"") -> dict[str, Any]:
        (answer,) = await link.ask([(f"$JS.API.STREAM.{verb}.{self._name}", body)])
        if not answer:
            raise BrokerRefused(f"it has no JetStream; start it with -js, {PLAIN}")
        read: dict[str, Any] = json.loads(answer)
        return read
