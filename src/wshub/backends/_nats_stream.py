"""Streams of JetStream, and the one that puts all messages of a prefix into one order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wshub.backends._broker import BrokerRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wshub.backends._nats_requests import NatsRequests

__all__ = ("NatsStream", "ask_stream", "find_stream")

MAX_AGE = 1_000_000_000
"""Nanoseconds after which the last message is forgotten, too."""

NO_STREAM = 10059
"""JetStream's code for a stream that does not exist."""

FORBIDDEN = (10039, 10076)
"""Its codes for an account, or a server, that has no JetStream."""

PLAIN = "or do without one order for all workers: ordered=False"


async def find_stream(
    requests: NatsRequests, settings: Mapping[str, object], *, hint: str
) -> dict[str, Any]:
    """
    Return how a stream is configured, which is made unless it is there.

    Args:
        requests: Who asks.
        settings: Of a stream to make; its `name` counts in any case.
        hint: What else to do where there is no JetStream.

    Raises:
        BrokerRefused: There is no JetStream.
        ConnectionError: It cannot be made now.
    """
    name = settings["name"]
    found = await ask_stream(requests, f"INFO.{name}", hint=hint)
    if found.get("error", {}).get("err_code") == NO_STREAM:
        found = await ask_stream(requests, f"CREATE.{name}", settings, hint=hint)
    error = found.get("error")
    if error is not None:
        problem = f"JetStream says: {error.get('description')}"
        if error.get("err_code") in FORBIDDEN:
            raise BrokerRefused(f"{problem}; enable it, {hint}")
        raise ConnectionError(problem)
    config: dict[str, Any] = found["config"]
    return config


async def ask_stream(
    requests: NatsRequests, verb: str, body: object = None, *, hint: str
) -> dict[str, Any]:
    """Return what JetStream answers about a stream; raise BrokerRefused if it is not there."""
    packed = b"" if body is None else json.dumps(body).encode()
    (answer,) = await requests.ask([(f"$JS.API.STREAM.{verb}", packed)])
    if not answer:
        raise BrokerRefused(f"it has no JetStream; start it with -js, {hint}")
    read: dict[str, Any] = json.loads(answer)
    return read


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

    async def find(self, requests: NatsRequests) -> None:
        """
        Make the stream, unless it is there.

        Raises:
            BrokerRefused: There is no JetStream, or a stream of this name does something else.
            ConnectionError: It cannot be made now.
        """
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
        config = await find_stream(requests, settings, hint=PLAIN)
        republished: dict[str, str] = config.get("republish", {})
        if self._incoming not in config["subjects"] or republished.get("dest") != self._outgoing:
            raise BrokerRefused(
                f"its stream {self._name} does not publish {self._incoming} to {self._outgoing}; "
                "delete it, or use another prefix"
            )

    async def publish(self, requests: NatsRequests, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish payloads; return once the stream has taken all."""
        for answer in await requests.ask(messages):
            if not answer:
                raise ConnectionError(f"the stream {self._name} is gone")
            if b'"error"' in answer:
                raise ConnectionError(f"the stream {self._name} took nothing: {answer.decode()}")
