"""Where a connection carries its credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection  # noqa: TC002  (FastAPI looks it up)

from wshub.exceptions import policy_violation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("CookieOrToken", "build_cookie_or_token", "get_cookie_or_token")


def build_cookie_or_token(
    *, cookie: str = "session", query: str = "token"
) -> Callable[[HTTPConnection], Awaitable[str]]:
    """
    Build a dependency that returns a cookie's value, or else a query parameter's.

    It serves WebSocket and HTTP routes. It proves nothing: what the value is worth, an empty one
    included, is for the app to verify.

    Args:
        cookie: Name of the cookie, looked at first.
        query: Name of the query parameter. URLs end up in access logs: prefer cookies, and keep
            such tokens short-lived.

    Returns:
        The dependency. Where both are missing it raises `WebSocketException` with 1008 on a
        WebSocket route and answers 401 on an HTTP route.
    """

    async def get_credential(connection: HTTPConnection) -> str:
        session = connection.cookies.get(cookie)
        token = connection.query_params.get(query)
        if session is None and token is None:
            reason = f"cookie {cookie!r} or query parameter {query!r} is missing"
            if connection.scope["type"] == "http":
                raise HTTPException(status_code=401, detail=reason)
            raise policy_violation(reason)
        return session or token or ""

    return get_credential


get_cookie_or_token: Callable[[HTTPConnection], Awaitable[str]] = build_cookie_or_token()
"""The tutorial's dependency: cookie `session`, else query `token`, else 1008."""

CookieOrToken: TypeAlias = Annotated[str, Depends(get_cookie_or_token)]
"""What `get_cookie_or_token` returns, as the annotation of a parameter."""
