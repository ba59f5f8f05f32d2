"""Secrets of tests, which no log line may tell."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from wshub.auth.source import Found, Place

if TYPE_CHECKING:
    import pytest
    from starlette.requests import HTTPConnection

__all__ = ("KEY", "Eavesdropper", "secret", "secrets_in", "watch_credentials")

KEY = "a shared secret of at least 32 bytes, for tests only"
"""What tokens of tests are signed with."""

_SECRETS: set[str] = set()


def secret(text: str | None = None) -> str:
    """Return `text`, or something random, after which no test of this session may log it."""
    text = text or secrets.token_urlsafe(24)
    _SECRETS.add(text)
    return text


def secrets_in(text: str) -> set[str]:
    """Return the secrets of this session that a text tells."""
    return {hidden for hidden in _SECRETS if hidden in text}


LEAST = 16
"""Characters from which on a credential of a test is a secret: shorter ones are words."""


def watch_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a secret of every credential that a source finds, wherever a test has it from."""
    find = Place.find

    async def find_and_note(place: Place, connection: HTTPConnection) -> Found | None:
        found = await find(place, connection)
        if found is not None and len(found.value) >= LEAST and not _may_be_logged(place):
            secret(found.value)
        return found

    monkeypatch.setattr(Place, "find", find_and_note)


def _may_be_logged(place: Place) -> bool:
    """Whether it is in the URL, which uvicorn logs, and nobody asked for redaction."""
    filters = logging.getLogger("uvicorn.error").filters
    return place.name.startswith(("query", "ticket")) and not filters


class Eavesdropper(logging.Handler):
    """
    Reads what is logged, tracebacks included, and notes lines with secrets in them.

    Attributes:
        heard: Those lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        # The client of a test knows its own secrets; servers tell all they get at level debug.
        is_ours = record.name == "wshub"
        if record.name.startswith("websockets") or (record.levelno < logging.INFO and not is_ours):
            return
        line = self.format(record)
        if secrets_in(line):
            self.heard.append(line)
