"""NATS as a store of one-time keys."""

from __future__ import annotations

import binascii
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wshub.backends._broker import BrokerRefused
from wshub.backends._nats_requests import NatsRequests
from wshub.backends._nats_servers import NatsServers, explain_refusals
from wshub.backends._nats_stream import ask_stream, find_stream

if TYPE_CHECKING:
    from wshub.backends._nats_url import Settings

__all__ = ("KEPT", "NatsStore")

KEPT = 3600
"""Seconds that the stream keeps a key, spent or not."""

MAX_KEYS = 1_000_000

NO_MESSAGE = 10037
OUTDATED = (10071, 10164)
"""JetStream's codes for a subject that holds another message than was expected."""

HINT = "or keep one-time keys elsewhere"


class NatsStore:
    """
    Keeps the last message of a subject for each key.

    Whoever takes one puts an empty message into its place, on condition that it is still the last
    one: of two, JetStream lets one do so (ADR-8, as the key-value store's `update`).
    """

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._settings = settings
        self._servers = NatsServers(settings)
        self._requests = NatsRequests(encrypted=settings.encrypted)
        self._name = f"{prefix}-once"
        self._subject = f"{prefix}.once"

    async def connect(self) -> None:
        """Connect, and see to the stream."""
        await self._servers.connect(self._connect_to, self.close)

    async def put(self, key: str, value: bytes, milliseconds: int) -> bool:
        """Keep a value for some time; False: there is one already."""
        data = b"%r\n%b" % (time.time() + milliseconds / 1000, value)
        with explain_refusals():
            return await self._replace(key, 0, data)

    async def take(self, key: str) -> bytes | None:
        """Return a value, to one caller only, and keep it no longer; None: there is none."""
        with explain_refusals():
            body = {"last_by_subj": self._subject_of(key)}
            found = await ask_stream(self._requests, f"MSG.GET.{self._name}", body, hint=HINT)
            if "error" in found:
                if found["error"].get("err_code") == NO_MESSAGE:
                    return None
                raise ConnectionError(f"JetStream says: {found['error'].get('description')}")
            message: dict[str, Any] = found["message"]
            data = binascii.a2b_base64(message.get("data", ""))
            if not data or not await self._replace(key, message["seq"], b""):
                return None
        ends, _, value = data.partition(b"\n")
        return value if time.time() < float(ends) else None

    async def close(self) -> None:
        """Drop the connection. Idempotent."""
        await self._requests.close()

    async def _connect_to(self, server: str) -> None:
        self._requests = NatsRequests(encrypted=self._settings.encrypted)
        await self._requests.connect(server, self._settings.options)
        settings = {
            "name": self._name,
            "subjects": [f"{self._subject}.*"],
            "storage": "memory",
            "retention": "limits",
            "discard": "new",
            "max_msgs": MAX_KEYS,
            "max_msgs_per_subject": 1,
            "max_age": KEPT * 1_000_000_000,
            "num_replicas": 1,
        }
        config = await find_stream(self._requests, settings, hint=HINT)
        if settings["subjects"] != config["subjects"] or config["max_msgs_per_subject"] != 1:
            raise BrokerRefused(
                f"its stream {self._name} does not keep {self._subject}.*, one message of each; "
                "delete it, or use another prefix"
            )

    async def _replace(self, key: str, sequence: int, data: bytes) -> bool:
        """Put a message into the place of another; 0: of none. False: another one is there."""
        header = b"Nats-Expected-Last-Subject-Sequence: %d" % sequence
        (answer,) = await self._requests.ask([(self._subject_of(key), data)], header)
        error = json.loads(answer).get("error") if answer else {"description": "no stream"}
        if error is None:
            return True
        if error.get("err_code") in OUTDATED:
            return False
        raise ConnectionError(f"the stream {self._name} took nothing: {error.get('description')}")

    def _subject_of(self, key: str) -> str:
        return f"{self._subject}.{quote(key, safe='').replace('.', '%2E')}"
