"""The root of the error tree."""

from __future__ import annotations

__all__ = ("HubError",)


class HubError(Exception):
    """Base of the errors that wshub raises. Each has fields and composes its own text."""
