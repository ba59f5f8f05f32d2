"""From a credential to a principal."""

from __future__ import annotations

import inspect
import logging
import time
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from wshub.auth.credential import InvalidCredential
from wshub.auth.origins import OriginPolicy
from wshub.auth.principal import Principal
from wshub.auth.refusal import AUTHENTICATED_AT, place_of, refuse
from wshub.auth.source import signature_of, to_source
from wshub.exceptions import InvalidName, Rejection, forbidden, unauthorized

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi.security.base import SecurityBase

    from wshub.auth.source import Found, Source, Verifier

    Authentication: TypeAlias = Callable[..., Awaitable[Principal]]

__all__ = ("authenticate", "require")

_logger = logging.getLogger("wshub")


def authenticate(
    source: Source | SecurityBase,
    *,
    verify: Verifier | None = None,
    origins: OriginPolicy | None = None,
) -> Authentication:
    """
    Build a dependency that returns the `Principal` behind a connection, or refuses it.

    It serves WebSocket and HTTP routes, and runs before a WebSocket is accepted, unless
    `first_message()` had to accept it. Without a credential, or with one that is worth nothing, a
    WebSocket is refused with 3000 (HTTP 401 with a `RejectionHandler`, else 403) and an HTTP
    request with 401; with a cookie from the wrong page with 3003, HTTP 403. The client learns no
    more; the logger `wshub` says who came, whereto, and what was wrong, but no credential.

    Args:
        source: Where to look: `cookie("session")`, `first_of(…)`, or one of FastAPI's security
            classes.
        verify: Says who a credential stands for. Sources that were given a verifier of their
            own, by `verified_by()` or `ticket()`, do not ask it.
        origins: From which pages a cookie is taken; by default those of the same origin.

    Raises:
        TypeError: A source has no verifier.
    """
    place = to_source(source)
    policy = origins or OriginPolicy()
    unverified = [member.name for member in place.members if not member.has_verifier]
    if verify is None and unverified:
        raise TypeError(f"nobody verifies {', '.join(unverified)}; pass verify=")

    async def get_principal(connection: HTTPConnection, **_: object) -> Principal:
        connection.scope.setdefault(AUTHENTICATED_AT, time.monotonic())
        found = await place.find(connection)
        if found is None or not found.value:
            raise refuse(connection, unauthorized("log in first"), f"{place.name} is missing")
        if found.source.is_ambient:
            await policy(connection)
        principal = await _identify(connection, found, verify)
        _logger.debug("%s is user %a", place_of(connection), principal.user)
        return principal

    return _with_signature(get_principal, signature_of(place))


def require(*scopes: str, of: Authentication) -> Authentication:
    """
    Build a dependency that returns the principal `of` another one, if it has all of `scopes`.

    Others are refused with 3003, or HTTP 403.

    Args:
        *scopes: What the user must be allowed to do.
        of: What `authenticate()` returned.

    Raises:
        ValueError: There are no scopes.
    """
    if not scopes:
        raise ValueError("require() needs at least one scope")

    async def get_principal(connection: HTTPConnection, principal: Principal) -> Principal:
        if not principal.has_scopes(scopes):
            missing = sorted(set(scopes) - principal.scopes)
            why = f"user {principal.user!a} has no scope {', '.join(missing)}"
            raise refuse(connection, forbidden(), why)
        return principal

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("connection", kind, annotation=HTTPConnection),
        inspect.Parameter("principal", kind, default=Depends(of), annotation=Principal),
    ]
    return _with_signature(get_principal, inspect.Signature(parameters))


async def _identify(connection: HTTPConnection, found: Found, verify: Verifier | None) -> Principal:
    """Return who a credential stands for, or refuse its connection."""
    name = found.source.name
    try:
        principal = await found.source.verify(connection, found.value, verify)
    except InvalidCredential as error:
        rejection = unauthorized(error.reason)
        raise refuse(connection, rejection, f"{name}: {error.problem}") from None
    except InvalidName as error:
        raise refuse(connection, unauthorized("invalid credential"), f"{name}: {error}") from None
    except Rejection as rejection:
        raise refuse(connection, rejection, f"{name}: {rejection.reason}") from None
    if principal is None:
        raise refuse(connection, unauthorized("invalid credential"), f"{name} is not valid")
    if not isinstance(principal, Principal):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"a verifier returns a Principal or None, not {type(principal).__name__}; "
            "wrap the user id: Principal(user)"
        )
    if principal.has_expired:
        raise refuse(connection, unauthorized("token expired"), f"{name} has expired")
    return principal


def _with_signature(dependency: Authentication, signature: inspect.Signature) -> Authentication:
    cast("Any", dependency).__signature__ = signature
    return dependency
