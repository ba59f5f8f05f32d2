"""Where a connection carries its credential: what all places have in common."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

from fastapi import Depends
from fastapi.security import HTTPBasicCredentials, OAuth2, OpenIdConnect
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from wshub.auth.credential import ask
from wshub.auth.refusal import refuse
from wshub.exceptions import policy_violation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi.openapi.models import SecurityBase as SecurityModel

    from wshub.auth.principal import Principal

__all__ = (
    "Found",
    "Place",
    "Source",
    "Verifier",
    "bearer_of",
    "first_of",
    "signature_of",
    "to_source",
)

MAX_CREDENTIAL_LENGTH = 8192
"""Characters of the longest credential that is looked at."""

Verifier: TypeAlias = "Callable[[str], Principal | Awaitable[Principal | None] | None]"
"""
Says who a credential stands for: a principal, or None if it is worth nothing.

It may also raise `InvalidCredential`, whose problem goes to the log. One that is `def` runs in a
thread, as FastAPI runs such dependencies, one that is `async def` in the event loop.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """
    A credential and where it came from. Its text does not show the value.

    Attributes:
        value: The credential, not verified; it may be empty.
        source: The place.
    """

    value: str = field(repr=False)
    source: Source


class Source(ABC):
    """
    A place where a connection may carry a credential, made by `cookie()` and the like.

    It is a FastAPI dependency for WebSocket and HTTP routes: it returns the credential, which is
    a claim and proves nothing. Without one it raises `WebSocketException` with 1008 on a
    WebSocket route, and answers 401 on an HTTP route. `authenticate()` makes a dependency of it
    that also verifies.

    Attributes:
        name: What messages and logs call it.
        members: The places in it, in the order in which they are looked at.
        is_ambient: Whether browsers send it along with what pages of other sites open.
    """

    waits = False

    def __init__(
        self, name: str, *, schemes: Sequence[Scheme] = (), is_ambient: bool = False
    ) -> None:
        self.name: str = name
        self.members: tuple[Source, ...] = (self,)
        self.is_ambient: bool = is_ambient
        self._verifier: Verifier | None = None
        self._schemes = tuple(schemes)
        self.__signature__: inspect.Signature = signature_of(self)

    def __repr__(self) -> str:
        return f"<source: {self.name}>"

    @abstractmethod
    async def find(self, connection: HTTPConnection) -> Found | None:
        """Return the credential that `connection` carries here, or None."""

    @property
    def has_verifier(self) -> bool:
        """Whether it has a verifier of its own."""
        return self._verifier is not None

    async def verify(
        self,
        connection: HTTPConnection,  # noqa: ARG002  (a ticket's verifier needs it)
        value: str,
        verify: Verifier | None,
    ) -> Principal | None:
        """Ask its own verifier, or else `verify`, who `value` stands for on `connection`."""
        verifier = self._verifier or verify
        assert verifier is not None  # noqa: S101  (authenticate() has seen to that)
        return await ask(verifier, value)

    def verified_by(self, verify: Verifier) -> Self:
        """Return the same place, whose credentials `verify` is asked about, whoever else is."""
        source = copy(self)
        source._verifier = verify
        source.members = (source,)
        return source

    async def __call__(self, connection: HTTPConnection, **_: object) -> str:
        """Return the credential; refuse a connection without one."""
        found = await self.find(connection)
        if found is None:
            problem = f"{self.name} is missing"
            raise refuse(connection, policy_violation(problem), problem, status=401)
        return found.value


class Place(Source):
    """A source that is one place."""

    async def find(self, connection: HTTPConnection) -> Found | None:
        """Return the credential that `connection` carries here, or None."""
        value = await self._read(connection)
        if value is None or len(value) > MAX_CREDENTIAL_LENGTH:
            return None
        return Found(value, self)

    @abstractmethod
    async def _read(self, connection: HTTPConnection) -> str | None:
        """Return what is in this place, or None."""


class _FirstOf(Source):
    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__(
            " or ".join(source.name for source in sources),
            schemes=[scheme for source in sources for scheme in source._schemes],
            is_ambient=any(source.is_ambient for source in sources),
        )
        self.members = tuple(member for source in sources for member in source.members)
        if any(member.waits for member in self.members[:-1]):
            raise ValueError("first_message() waits for the client: put it last in first_of()")

    async def find(self, connection: HTTPConnection) -> Found | None:
        empty: Found | None = None
        for member in self.members:
            found = await member.find(connection)
            if found is not None and found.value:
                return found
            empty = empty or found
        return empty

    def verified_by(self, verify: Verifier) -> Self:
        source = copy(self)
        source.members = tuple(member.verified_by(verify) for member in self.members)
        return source


class _SecurityClass(Place):
    """A place that one of FastAPI's security classes knows."""

    def __init__(self, security: SecurityBase) -> None:
        model: Any = security.model
        where = getattr(model, "in_", None)
        super().__init__(
            f"{security.scheme_name} credential",
            schemes=[(security.scheme_name, model)],
            # Browsers remember a password for the site, too, and send it by themselves.
            is_ambient=getattr(where, "value", where) == "cookie"
            or getattr(model, "scheme", "").lower() in {"basic", "digest", "negotiate", "ntlm"},
        )
        self._gives_header = type(security).__call__ in (OAuth2.__call__, OpenIdConnect.__call__)
        self._security = copy(cast("Any", security))
        self._security.auto_error = False

    async def _read(self, connection: HTTPConnection) -> str | None:
        # Called by hand: before 0.145 FastAPI gives these classes a Request, which a WebSocket
        # route has none of.
        try:
            found = await self._security(connection)
        except HTTPException:  # HTTPBasic's, of a header that it cannot read
            return None
        if isinstance(found, HTTPBasicCredentials):
            return f"{found.username}:{found.password}"
        credentials = getattr(found, "credentials", found)
        if not isinstance(credentials, str):
            return None
        return bearer_of(credentials) if self._gives_header else credentials


class _Documented(SecurityBase):
    """Tells FastAPI's OpenAPI of a scheme, and does nothing."""

    def __init__(self, name: str, model: SecurityModel) -> None:
        self.scheme_name = name
        self.model = model

    def __call__(self) -> None:
        """Nothing to do: the source reads by itself."""


Scheme: TypeAlias = "tuple[str, SecurityModel]"


def to_source(source: Source | SecurityBase) -> Source:
    """
    Return a source for one of FastAPI's security classes, too.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, SecurityBase):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _SecurityClass(source)
    raise TypeError(f"{source!r} is no source of credentials; use cookie(), bearer_header(), …")


def first_of(*sources: Source | SecurityBase) -> Source:
    """
    Combine places: the first of them, in this order, where there is something counts.

    What the client put into later ones is not looked at, also if the first turns out to be
    worth nothing. An empty value counts only if all others are missing.

    Args:
        *sources: `cookie()`, `bearer_header()`, …, or FastAPI's security classes.

    Raises:
        ValueError: There are none, or `first_message()` is not the last.
    """
    if not sources:
        raise ValueError("first_of() needs at least one source")
    return _FirstOf([to_source(source) for source in sources])


def bearer_of(header: str) -> str | None:
    """Return the token in an `Authorization` header; None if there is another kind, or none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def signature_of(source: Source) -> inspect.Signature:
    """Return the signature of a dependency on `source`, by which OpenAPI learns of its schemes."""
    kind = inspect.Parameter.KEYWORD_ONLY
    connection = inspect.Parameter("connection", kind, annotation=HTTPConnection)
    documented = [
        inspect.Parameter(f"scheme_{number}", kind, default=Depends(_Documented(name, model)))
        for number, (name, model) in enumerate(source._schemes)
    ]
    return inspect.Signature([connection, *documented])
