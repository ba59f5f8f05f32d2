"""The tutorial's dependency: a cookie, or else a query parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Depends

from wshub.auth.source import first_of
from wshub.auth.sources import cookie as cookie_source
from wshub.auth.sources import query as query_source

if TYPE_CHECKING:
    from wshub.auth.source import Source

__all__ = ("CookieOrToken", "build_cookie_or_token", "get_cookie_or_token")


def build_cookie_or_token(*, cookie: str = "session", query: str = "token") -> Source:
    """
    Build a dependency that returns a cookie's value, or else a query parameter's.

    The same as `first_of(cookie(…), query(…))`. It serves WebSocket and HTTP routes, proves
    nothing, and looks at no origin: what the value is worth, an empty one included, is for the
    app to verify, or for `authenticate()`.

    Args:
        cookie: Name of the cookie, looked at first.
        query: Name of the query parameter. URLs end up in access logs: prefer cookies, and keep
            such tokens short-lived.

    Returns:
        The dependency. Where both are missing it raises `WebSocketException` with 1008 on a
        WebSocket route and answers 401 on an HTTP route.
    """
    return first_of(cookie_source(cookie), query_source(query))


get_cookie_or_token: Source = build_cookie_or_token()
"""The tutorial's dependency: cookie `session`, else query `token`, else 1008."""

CookieOrToken: TypeAlias = Annotated[str, Depends(get_cookie_or_token)]
"""What `get_cookie_or_token` returns, as the annotation of a parameter."""
