"""From which pages connections may come."""

from __future__ import annotations

import re
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Literal, NamedTuple

from starlette.requests import HTTPConnection

from wshub.auth.refusal import is_http, refuse
from wshub.exceptions import forbidden

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ("OriginPolicy", "origin_of")

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#@:\[\]\s]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?",
    re.IGNORECASE,
)
_PORTS = {"http": 80, "https": 443}
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
LONGEST_SHOWN = 200
"""Characters of a client's origin that go into a log line."""


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


class OriginPolicy:
    """
    Decides by the `Origin` header, which browsers add and scripts cannot change.

    Browsers send a site's cookies along with a WebSocket that any page opens, and CORS does not
    apply to WebSockets. `authenticate()` asks this policy whenever a credential came from a
    cookie; as a dependency of its own, `Depends(OriginPolicy(…))`, it guards any route. Scheme,
    host and port have to be equal; there are no patterns. HTTP requests that only read are let
    through, and so are those without the header, which browsers add to all others.

    Args:
        allow: Origins of your pages on other hosts, as `"https://app.example.com"`; `"*"` lets
            every page in, which no endpoint with cookies should.
        same_origin: Whether pages of the host that the connection is for may connect. Behind a
            proxy the server has to know its clients' scheme and host: see the documentation.
        missing: What a WebSocket without the header gets. It is no browser's, so it cannot be
            another site's page; `"allow"` it if other programs send your cookies.

    Raises:
        ValueError: An origin is none, or nobody could ever connect.
        TypeError: `allow` is a single string other than `"*"`.
    """

    def __init__(
        self,
        *,
        allow: Collection[str] | Literal["*"] = (),
        same_origin: bool = True,
        missing: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        if isinstance(allow, str) and allow != "*":
            raise TypeError("allow is a collection; pass allow=[origin]")
        if missing not in {"refuse", "allow"}:
            raise ValueError(f"missing must be 'refuse' or 'allow', not {missing!r}")
        if not (allow or same_origin):
            raise ValueError("nobody could connect; pass allow=[origin], or same_origin=True")
        self._allow_all = allow == "*"
        self._allowed = frozenset(() if allow == "*" else map(_parse_ours, allow))
        self._same_origin = same_origin
        self._missing = missing
        # FastAPI does not find the names in the annotations of an object's method.
        parameter = Parameter("connection", Parameter.KEYWORD_ONLY, annotation=HTTPConnection)
        self.__signature__: Signature = Signature([parameter])

    def find_problem(self, connection: HTTPConnection) -> str | None:
        """Return why `connection` is refused, for a log; None if it is not."""
        is_request = is_http(connection)
        if self._allow_all or (is_request and connection.scope["method"] in _SAFE_METHODS):
            return None
        headers = connection.headers.getlist("origin")
        if headers:
            return self._find_problem(connection, headers)
        may_lack = is_request or self._missing == "allow"
        return None if may_lack else "it has no Origin header"

    def _find_problem(self, connection: HTTPConnection, headers: list[str]) -> str | None:
        origin = _parse(headers[0]) if len(headers) == 1 else None
        own = _own_origin(connection) if self._same_origin else None
        if origin is not None and (origin in self._allowed or origin == own):
            return None
        here = f", and it is for {_show(own)}" if own else ""
        return f"its origin {', '.join(headers)[:LONGEST_SHOWN]!a} is not allowed{here}"

    async def __call__(self, connection: HTTPConnection) -> None:
        """
        Refuse `connection` if it comes from the wrong page, and log why.

        Raises:
            Rejection: It is a WebSocket: 3003, before accept HTTP 403.
            HTTPException: It is an HTTP request: 403.
        """
        problem = self.find_problem(connection)
        if problem is not None:
            raise refuse(connection, forbidden("origin not allowed"), problem, alarm="origin")


def origin_of(connection: HTTPConnection) -> str:
    """Return the `Origin` header as it is, or an empty string."""
    return connection.headers.get("origin", "")


def _own_origin(connection: HTTPConnection) -> _Origin | None:
    """Return the origin of the pages of the host that `connection` is for."""
    hosts = connection.headers.getlist("host")
    scheme: str = connection.scope.get("scheme", "")
    return _parse(f"{_HTTP_SCHEMES.get(scheme, scheme)}://{hosts[0]}") if len(hosts) == 1 else None


def _parse_ours(text: str) -> _Origin:
    origin = _parse(text)
    if origin is None:
        raise ValueError(f"{text!r} is no origin; write it as 'https://app.example.com'")
    return origin


def _parse(text: str) -> _Origin | None:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _PORTS.get(scheme)
    return _Origin(scheme, match["host"].lower(), port)


def _show(origin: _Origin) -> str:
    return ascii(f"{origin.scheme}://{origin.host[:LONGEST_SHOWN]}:{origin.port}")
