"""Tickets: credentials for one handshake, fetched over HTTP just before it."""

from __future__ import annotations

import json
import logging
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from wshub.auth.credential import InvalidCredential
from wshub.auth.origins import origin_of
from wshub.auth.principal import Principal
from wshub.auth.refusal import AUTHENTICATED_AT
from wshub.auth.seal import seal, unseal
from wshub.auth.source import Place, Source
from wshub.backends.one_time_keys import MemoryOneTimeKeys
from wshub.exceptions import BackendUnavailable, try_again_later

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from wshub.auth.source import Verifier
    from wshub.backends.base import OneTimeKeys

__all__ = ("Tickets", "ticket")

_logger = logging.getLogger("wshub")

MAX_LIFETIME = 240.0
"""Seconds; with those of a handshake no more than dismissals are remembered for."""


class Tickets:
    """
    Issues tickets and takes each of them once.

    A page fetches one with the log-in that it has, by POST, and puts it into the URL of its
    WebSocket. It stands for the user it was issued to, works only from the page's origin, only
    for some seconds and only once, so that it may well end up in a log. Its store learns neither
    the ticket, of which it has a hash, nor whom it stands for, which is sealed with the ticket.

    Args:
        keys: Where they are kept; by default the memory of this process. Give all workers the
            same store, else only the worker that issued a ticket takes it.
        lifetime: Seconds that a ticket is worth something, at most 240: for so long managers
            remember whom they have dismissed.

    Raises:
        ValueError: `lifetime` is out of its range.
    """

    def __init__(self, keys: OneTimeKeys | None = None, *, lifetime: float = 30.0) -> None:
        if not 0 < lifetime <= MAX_LIFETIME:
            raise ValueError(f"lifetime must be 0 to {MAX_LIFETIME:g} seconds, not {lifetime!r}")
        self._keys: OneTimeKeys = keys or MemoryOneTimeKeys()
        self._lifetime = lifetime

    async def issue(self, principal: Principal, request: HTTPConnection) -> str:
        """
        Return a new ticket for `principal`, bound to the origin of `request`.

        Call it in a POST route: with GET, browsers do not say where a page comes from. Never
        let a cache or a log keep the answer.

        Raises:
            HTTPException: The store takes no ticket now: 503, with Retry-After. Or the request was
                authenticated by a ticket, and that by another one, for over 240 seconds: 401.
            TypeError: JSON cannot express a claim of the principal.
            ValueError: The same, of a number.
        """
        ticket = secrets.token_urlsafe(32)
        age = time.monotonic() - request.scope.get(AUTHENTICATED_AT, time.monotonic())
        if age >= MAX_LIFETIME:
            # Tickets for tickets would outlive the memory of a dismissal.
            raise HTTPException(401, "log in again")
        values = {
            "principal": principal.to_json(),
            "origin": origin_of(request),
            "authenticated_at": time.time() - age,
        }
        lifetime = min(self._lifetime, MAX_LIFETIME - age)
        if principal.expires_at is not None:
            lifetime = max(0.001, min(lifetime, principal.expires_at - time.time()))
        try:
            await self._keys.put(_hash(ticket), seal(ticket, json.dumps(values)), lifetime)
        except BackendUnavailable as error:
            _logger.warning("no ticket for user %a: %s", principal.user, error)
            raise HTTPException(503, "try again later", {"Retry-After": "5"}) from None
        return ticket

    async def redeem(self, ticket: str, connection: HTTPConnection) -> Principal:
        """
        Take `ticket` and return whom it was issued to; it is spent, whatever comes of it.

        Who has been dismissed since it was issued, by `disconnect_user()` say, is so by
        `manager.connection()`, too.

        Raises:
            InvalidCredential: It was never issued, or is spent, or too old, or `connection`
                comes from another origin.
            Rejection: The store cannot be asked now: 1013, HTTP 503.
        """
        try:
            sealed = await self._keys.take(_hash(ticket))
        except BackendUnavailable as error:
            _logger.warning("no ticket can be taken: %s", error)
            raise try_again_later() from None
        if sealed is None:
            raise InvalidCredential("it was never issued, or is spent, or too old")
        values: dict[str, Any] = json.loads(unseal(ticket, sealed))
        origin: str = values["origin"]
        if origin != origin_of(connection):
            raise InvalidCredential(
                f"it was issued to origin {origin!a}, not {origin_of(connection)[:200]!a}"
            )
        age = max(0.0, time.time() - values["authenticated_at"])
        connection.scope[AUTHENTICATED_AT] = time.monotonic() - age
        return Principal.from_json(values["principal"])


class _Ticket(Place):
    def __init__(self, tickets: Tickets, name: str) -> None:
        super().__init__(f"ticket {name!r}")
        self._tickets = tickets
        self._key = name

    @property
    def has_verifier(self) -> bool:
        return True

    async def _read(self, connection: HTTPConnection) -> str | None:
        return connection.query_params.get(self._key)

    async def verify(
        self,
        connection: HTTPConnection,
        value: str,
        verify: Verifier | None,  # noqa: ARG002  (tickets verify themselves)
    ) -> Principal | None:
        return await self._tickets.redeem(value, connection)


def ticket(tickets: Tickets, *, name: str = "ticket") -> Source:
    """
    Look for one of `tickets` in a query parameter, and verify it.

    Args:
        tickets: Who issued them.
        name: Name of the query parameter.
    """
    return _Ticket(tickets, name)


def _hash(ticket: str) -> str:
    return sha256(b"wshub ticket " + ticket.encode("utf-8", "surrogatepass")).hexdigest()
