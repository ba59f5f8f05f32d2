"""Secrets of tests, which no log line may tell."""

from __future__ import annotations

import logging
import secrets

__all__ = ("KEY", "Eavesdropper", "secret")

KEY = "a shared secret of at least 32 bytes, for tests only"
"""What tokens of tests are signed with."""

_SECRETS: set[str] = set()


def secret(text: str | None = None) -> str:
    """Return `text`, or something random, after which no test of this session may log it."""
    text = text or secrets.token_urlsafe(24)
    _SECRETS.add(text)
    return text


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
        if any(hidden in line for hidden in _SECRETS):
            self.heard.append(line)
