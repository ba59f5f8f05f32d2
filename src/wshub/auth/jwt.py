"""JSON Web Tokens, verified by PyJWT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wshub.auth.credential import InvalidCredential
from wshub.auth.jwks import KeySet
from wshub.auth.principal import Principal
from wshub.auth.pyjwt import import_pyjwt
from wshub.exceptions import InvalidName

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from types import ModuleType

__all__ = ("jwt_verifier",)

MAX_LEEWAY = 300.0
"""Seconds that clocks may differ at most."""


def jwt_verifier(
    key: str | bytes | KeySet,
    *,
    algorithms: Collection[str],
    audience: str | None = None,
    issuer: str | None = None,
    leeway: float = 10.0,
    session_claim: str = "sid",
    scope_claim: str = "scope",
) -> Callable[[str], Awaitable[Principal]]:
    """
    Build a verifier of JWTs for `authenticate()`. Needs `pip install 'wshub[jwt]'`.

    A token has to say who it is for (`sub`) and when it ends (`exp`). It is checked in the event
    loop, which it holds up for microseconds.

    Args:
        key: The shared secret, the public key in PEM, or a `KeySet`.
        algorithms: Those that may have signed it, as `["RS256"]`; all with a shared secret or
            all with a public key. What the token says itself has to be one of them.
        audience: What its `aud` must be, or contain. None: it must have none.
        issuer: What its `iss` must be. None: it does not matter.
        leeway: Seconds by which clocks may differ, at most 300; tokens are good so much longer.
        session_claim: The claim that becomes `session_id`.
        scope_claim: The claim that becomes `scopes`: words in a string, or a list of them.

    Raises:
        ImportError: PyJWT is missing.
        TypeError: `algorithms` is a single string.
        ValueError: No algorithm is named, or `none`, or one that PyJWT does not know here, or
            some with a shared secret and some without; `leeway` is out of its range; or the key
            is unfit for an algorithm, say too short.
    """
    pyjwt = import_pyjwt()
    allowed = _check_algorithms(pyjwt, algorithms)
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ValueError(f"leeway must be 0 to {MAX_LEEWAY:g} seconds, not {leeway!r}")
    if not isinstance(key, KeySet):
        _check_key(pyjwt, key, allowed)
    options: dict[str, Any] = {"require": ["sub", "exp"]}

    async def verify(token: str) -> Principal:
        try:
            secret: object = key
            if isinstance(key, KeySet):
                secret = await key.find(pyjwt.get_unverified_header(token))
            claims = pyjwt.decode(
                token,
                secret,
                algorithms=allowed,
                audience=audience,
                issuer=issuer,
                leeway=leeway,
                options=options,
            )
            return _to_principal(claims, leeway, session_claim, scope_claim)
        except pyjwt.ExpiredSignatureError:
            raise InvalidCredential("it has expired", expired=True) from None
        except _refusals(pyjwt) as error:
            # The texts of some have parts of the token in them.
            raise InvalidCredential(f"it is refused by {type(error).__name__}") from None

    return verify


def _refusals(pyjwt: ModuleType) -> tuple[type[Exception], ...]:
    """Return what strange tokens make of PyJWT and of `Principal`."""
    return (
        pyjwt.PyJWTError,
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
        InvalidName,
    )


def _check_algorithms(pyjwt: ModuleType, algorithms: Collection[str]) -> list[str]:
    if isinstance(algorithms, str):
        raise TypeError("algorithms is a collection; pass algorithms=[name]")
    allowed = list(algorithms)
    if not allowed:
        raise ValueError('name the algorithms that you sign with: algorithms=["RS256"]')
    known = set(pyjwt.algorithms.get_default_algorithms()) - {"none"}
    for name in allowed:
        if name not in known:
            raise ValueError(
                f"algorithm {name!r} cannot be used; there are {', '.join(sorted(known))}"
            )
    if len({name.startswith("HS") for name in allowed}) > 1:
        # A public key would be taken for the shared secret, which anybody could sign with.
        raise ValueError("algorithms with a shared secret (HS…) go with no others")
    return allowed


def _check_key(pyjwt: ModuleType, key: str | bytes, algorithms: list[str]) -> None:
    for name in algorithms:
        algorithm = pyjwt.get_algorithm_by_name(name)
        try:
            problem = algorithm.check_key_length(algorithm.prepare_key(key))
        except (pyjwt.PyJWTError, ValueError, TypeError) as error:
            problem = f"{type(error).__name__}"
        if problem:
            raise ValueError(f"the key is unfit for {name}: {problem}")


def _to_principal(
    claims: Mapping[str, Any], leeway: float, session_claim: str, scope_claim: str
) -> Principal:
    session, scopes = claims.get(session_claim), claims.get(scope_claim)
    words: Any = scopes.split() if isinstance(scopes, str) else scopes or []
    if not isinstance(words, list) or not all(map(_is_text, cast("list[object]", words))):
        raise TypeError("scopes are words in a string, or a list of strings")
    if session is not None and not isinstance(session, str):
        raise TypeError("a session id is a string")
    return Principal(
        claims["sub"],
        session_id=session,
        scopes=frozenset(cast("list[str]", words)),
        expires_at=float(claims["exp"]) + leeway,
        claims=claims,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
