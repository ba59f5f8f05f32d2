"""Refusals of WebSockets and of HTTP requests alike: little for the client, more for the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from wshub._rejection import make_headers

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from wshub.exceptions import Rejection

__all__ = ("AUTHENTICATED_AT", "is_http", "log_refusal", "place_of", "refuse")

_logger = logging.getLogger("wshub")

AUTHENTICATED_AT = "wshub.authenticated_at"
"""Where the scope of a connection has the `time.monotonic()` at which its credential was read."""

QUIET_SECONDS = 60.0
"""Seconds between two warnings of one kind: whoever wants in can ask without end."""

LONGEST_PLACE = 200
"""Characters of a client's path that go into a log line."""

_quiet_until: dict[str, float] = {}


def refuse(
    connection: HTTPConnection,
    rejection: Rejection,
    why: str,
    *,
    status: int | None = None,
    alarm: str | None = None,
) -> Exception:
    """
    Log that `connection` is refused, and return the error to raise, of the kind that it knows.

    Args:
        connection: Who.
        rejection: What a WebSocket is told.
        why: What the log is told. No secret.
        status: What an HTTP request is told; by default what fits the rejection.
        alarm: The kind of warning that it is, the first in a minute; None: it is none.
    """
    log_refusal(connection, why, alarm=alarm)
    if not is_http(connection):
        return rejection
    status = status or rejection.http_status
    return HTTPException(status, rejection.reason, make_headers(rejection, status) or None)


def log_refusal(connection: HTTPConnection, why: str, *, alarm: str | None = None) -> None:
    """Log that `connection` is refused, and `why`: as a warning if it is the first such alarm."""
    level = logging.INFO if alarm is None or _is_quiet(alarm) else logging.WARNING
    if _logger.isEnabledFor(level):
        _logger.log(level, "refused %s: %s", place_of(connection), why)


def is_http(connection: HTTPConnection) -> bool:
    """Whether it is an HTTP request, and no WebSocket."""
    return bool(connection.scope["type"] == "http")


def place_of(connection: HTTPConnection) -> str:
    """Say where `connection` leads and where it comes from, for a log; never its query."""
    path = ascii(connection.scope["path"][:LONGEST_PLACE])
    client = connection.client.host if connection.client else "an unknown address"
    return f"{connection.scope['type']} {path} from {client}"


def _is_quiet(alarm: str) -> bool:
    now = time.monotonic()
    if now < _quiet_until.get(alarm, now):
        return True
    _quiet_until[alarm] = now + QUIET_SECONDS
    return False
