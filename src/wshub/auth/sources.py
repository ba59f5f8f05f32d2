"""The places that a handshake has for a credential."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer

from wshub.auth.source import Place, Source, bearer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

__all__ = (
    "BEARER_PREFIX",
    "SUBPROTOCOL",
    "bearer_header",
    "bearer_subprotocol",
    "cookie",
    "query",
    "select_subprotocol",
)

SUBPROTOCOL = "wshub"
"""The subprotocol that a client offers beside its token, and that is selected."""

BEARER_PREFIX = "bearer."
"""What goes before the token in the subprotocol that carries it."""


class _Cookie(Place):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"cookie {name!r}", schemes=[_api_key(name, APIKeyIn.cookie)], is_ambient=True
        )
        self._key = name

    async def _read(self, connection: HTTPConnection) -> str | None:
        return connection.cookies.get(self._key)


class _Query(Place):
    def __init__(self, name: str) -> None:
        super().__init__(f"query parameter {name!r}", schemes=[_api_key(name, APIKeyIn.query)])
        self._key = name

    async def _read(self, connection: HTTPConnection) -> str | None:
        return connection.query_params.get(self._key)


class _BearerHeader(Place):
    def __init__(self) -> None:
        super().__init__("bearer token", schemes=[("bearer", HTTPBearer())])

    async def _read(self, connection: HTTPConnection) -> str | None:
        return bearer_of(connection.headers.get("authorization", ""))


class _BearerSubprotocol(Place):
    def __init__(self) -> None:
        super().__init__(f"subprotocol '{BEARER_PREFIX}…'")

    async def _read(self, connection: HTTPConnection) -> str | None:
        offered = _offered(connection)
        if SUBPROTOCOL not in offered:
            return None  # browsers drop a connection that selects nothing they offered
        tokens = [name for name in offered if name.startswith(BEARER_PREFIX)]
        return tokens[0].removeprefix(BEARER_PREFIX) if len(tokens) == 1 else None


def cookie(name: str) -> Source:
    """
    Look for a cookie: what a browser has after a log-in.

    It sends it along with what pages of other sites open, too, so `authenticate()` then looks at
    the origin, which this alone does not; see `OriginPolicy`. Give it `HttpOnly`, `Secure` and
    `SameSite`.
    """
    return _Cookie(name)


def bearer_header() -> Source:
    """Look for a header `Authorization: Bearer …`: what programs send, and scripts cannot."""
    return _BearerHeader()


def bearer_subprotocol() -> Source:
    """
    Look among the subprotocols, which a script can set: `["wshub", "bearer." + token]`.

    The manager selects `"wshub"` when it accepts and never repeats the token. A token may have
    letters, digits, and ``!#$%&'*+-.^_`|~`` in it, which is true of JWTs.
    """
    return _BearerSubprotocol()


def query(name: str) -> Source:
    """
    Look for a query parameter. URLs end up in logs: prefer any other place.

    Where it has to be, keep such tokens short-lived, and see `redact_queries()`.
    """
    return _Query(name)


def select_subprotocol(connection: HTTPConnection, *, otherwise_any: bool = False) -> str | None:
    """
    Return what to select of the subprotocols that `connection` offers, never its token.

    That is `"wshub"`, or else nothing, unless `otherwise_any`.
    """
    offered = _offered(connection)
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    others = [name for name in offered if not name.startswith(BEARER_PREFIX)]
    return others[0] if others and otherwise_any else None


def _offered(connection: HTTPConnection) -> Sequence[str]:
    offered: Sequence[str] | None = connection.scope.get("subprotocols")
    return offered or ()


def _api_key(name: str, place: APIKeyIn) -> tuple[str, APIKey]:
    return re.sub(r"[^\w.-]", "_", f"{place.value}-{name}"), APIKey.model_validate(
        {"in": place, "name": name}
    )
