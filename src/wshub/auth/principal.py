"""Who is behind a connection, and for how long."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wshub._names import check_user_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ("Principal", "hash_session")


@dataclass(frozen=True, slots=True)
class Principal:
    """
    A user as a verifier knows them: what `authenticate()` hands to routes.

    Its text shows neither the session nor the claims, which logs have no business with.

    Attributes:
        user: Id of the user.
        session_id: Id of the log-in, for `disconnect_session()`; None if there is no such thing.
            Indexed, and sent to other workers, as a hash.
        scopes: What the user may do.
        expires_at: Seconds since the epoch, as in a JWT, after which it is worth nothing; None:
            it never ends.
        claims: Anything else that the verifier found; JSON values, if tickets are issued for it.

    Raises:
        InvalidUserId: The user id is empty or too long, or has control characters.
        TypeError: `scopes` is a single string, or `session_id` is none.
        ValueError: `expires_at` is no finite number.
    """

    user: str
    session_id: str | None = field(default=None, kw_only=True, repr=False)
    scopes: frozenset[str] = field(default=frozenset(), kw_only=True)
    expires_at: float | None = field(default=None, kw_only=True)
    claims: Mapping[str, object] = field(
        default_factory=dict[str, object], kw_only=True, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_user_id(self.user)
        scopes: object = self.scopes
        if isinstance(scopes, str):
            raise TypeError("scopes is a collection; pass scopes=frozenset({scope})")
        session = self.session_id
        if not isinstance(session, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"session_id is a string, not {type(session).__name__}")
        if self.expires_at is not None and not isfinite(self.expires_at):
            raise ValueError(f"expires_at must be a finite number, not {self.expires_at!r}")
        object.__setattr__(self, "scopes", frozenset(self.scopes))
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))

    @property
    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    def has_scopes(self, scopes: Iterable[str]) -> bool:
        """Whether it has all of `scopes`."""
        return self.scopes.issuperset(scopes)

    def to_json(self) -> str:
        """
        Return it as JSON text, for a store.

        Raises:
            TypeError: A claim is nothing that JSON can express.
            ValueError: The same, of a number.
        """
        values = {
            "user": self.user,
            "session_id": self.session_id,
            "scopes": sorted(self.scopes),
            "expires_at": self.expires_at,
            "claims": dict(self.claims),
        }
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Principal:
        """
        Return what `to_json()` was called on.

        Raises:
            ValueError: It is not the text of a principal.
            TypeError: The same.
            KeyError: The same.
        """
        values: dict[str, Any] = json.loads(text)
        user: str = values.pop("user")
        return cls(user, **values)


def hash_session(session_id: str) -> str:
    """Return the name under which a session is indexed, and which other workers are told."""
    return blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
