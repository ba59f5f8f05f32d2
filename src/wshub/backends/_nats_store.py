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
"""Seconds that the stream keeps a key that nobody takes."""

MAX_KEYS = 1_000_000

NO_MESSAGE = (10037, 10043)
"""JetStream's codes for a subject without messages, and a sequence number without one."""

EXPECTS_NONE = b"Nats-Expected-Last-Subject-Sequence: 0"
UNEXPECTED = (10071, 10164)
"""Its codes for a subject that has a message already."""

HINT = "or keep one-time keys elsewhere"


class NatsStore:
    """
    Keeps a message for each key, on a subject of its own.

    Whoever takes one reads it and deletes it: of two that do so, JetStream tells one that there is
    nothing to delete.
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
            message = [(self._subject_of(key), data)]
            (answer,) = await self._requests.ask(message, EXPECTS_NONE)
        error = json.loads(answer).get("error") if answer else {"description": "no stream"}
        if error is None:
            return True
        if error.get("err_code") in UNEXPECTED:
            return False
        raise ConnectionError(f"the stream {self._name} took nothing: {error.get('description')}")

    async def take(self, key: str) -> bytes | None:
        """Return a value, to one caller only, and keep it no longer; None: there is none."""
        with explain_refusals():
            message = await self._ask("MSG.GET", {"last_by_subj": self._subject_of(key)})
            if message is None:
                return None
            sequence = message["message"]["seq"]
            if await self._ask("MSG.DELETE", {"seq": sequence, "no_erase": True}) is None:
                return None
        data = binascii.a2b_base64(message["message"].get("data", ""))
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

    async def _ask(self, verb: str, body: object) -> dict[str, Any] | None:
        """Return what JetStream answers about a message; None: there is none."""
        answer = await ask_stream(self._requests, f"{verb}.{self._name}", body, hint=HINT)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("err_code") in NO_MESSAGE:
            return None
        raise ConnectionError(f"JetStream says: {error.get('description')}")

    def _subject_of(self, key: str) -> str:
        return f"{self._subject}.{quote(key, safe='').replace('.', '%2E')}"
