"""Logs of servers without the credentials that URLs have in them."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("QueryRedaction", "redact_queries")

_QUERY = re.compile(r"(?<=\?)\S*?(?=\"?(?:\s|$))")
"""To the next white space: clients may send quotes and `#` as they are, and servers take them."""
UVICORN = ("uvicorn.access", "uvicorn.error")


class QueryRedaction(logging.Filter):
    """
    A filter for loggers and handlers that takes the values of query parameters out of records.

    Args:
        names: Of the parameters.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = frozenset(names)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact `record`, which is always let through."""
        if isinstance(record.msg, str):
            record.msg = self.redact(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(self._redact_any(value) for value in record.args)
        elif record.args:
            record.args = {key: self._redact_any(value) for key, value in record.args.items()}
        return True

    def redact(self, text: str) -> str:
        """Return `text` without the values of these parameters in any URL in it."""
        return _QUERY.sub(self._redact_query, text) if "?" in text else text

    def _redact_any(self, value: object) -> object:
        return self.redact(value) if isinstance(value, str) else value

    def _redact_query(self, query: re.Match[str]) -> str:
        return "&".join(map(self._redact_pair, query[0].split("&")))

    def _redact_pair(self, pair: str) -> str:
        name, equals, _ = pair.partition("=")
        return f"{name}=[redacted]" if equals and unquote_plus(name) in self._names else pair


def redact_queries(*names: str, loggers: Iterable[str] = UVICORN) -> None:
    """
    Keep the values of query parameters out of a server's log; by default uvicorn's.

    uvicorn writes the path and the query of each request and WebSocket. Call this when the app
    is made. Proxies, browsers and other software on the way have logs of their own.

    Args:
        *names: Of the parameters, as in `query("token")` and `ticket()`.
        loggers: Names of the loggers that the server writes URLs to.

    Raises:
        ValueError: There are no names.
    """
    if not names:
        raise ValueError("name the query parameters: redact_queries('token')")
    for logger in loggers:
        logging.getLogger(logger).addFilter(QueryRedaction(names))
