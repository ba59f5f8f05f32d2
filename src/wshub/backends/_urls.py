"""A backend, or one-time keys, by URL, as settings have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wshub.backends.memory import MemoryBackend
from wshub.backends.nats import NatsBackend
from wshub.backends.nats_one_time_keys import NatsOneTimeKeys
from wshub.backends.one_time_keys import MemoryOneTimeKeys
from wshub.backends.postgres import PostgresBackend
from wshub.backends.postgres_one_time_keys import PostgresOneTimeKeys
from wshub.backends.redis import RedisBackend
from wshub.backends.redis_one_time_keys import RedisOneTimeKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from wshub.backends.base import Backend, OneTimeKeys

__all__ = ("backend_from_url", "one_time_keys_from_url")

_Maker = tuple["Callable[..., Backend]", "Callable[..., OneTimeKeys]"]

_NATS: _Maker = (NatsBackend, NatsOneTimeKeys)
_POSTGRES: _Maker = (PostgresBackend, PostgresOneTimeKeys)
_REDIS: _Maker = (RedisBackend, RedisOneTimeKeys)

_MAKERS = {
    "nats": _NATS,
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
}
"""What makes the backend, and one-time keys, for each scheme, without what follows a `+`."""


def backend_from_url(url: str, **options: Any) -> Backend:  # noqa: ANN401  (each backend's own)
    """
    Return the backend that a URL names: `memory://`, `redis://…`, and what else a backend takes.

    Args:
        url: As `RedisBackend` and the others take it; their drivers are extras.
        **options: Arguments of that backend, as `prefix=`; for `memory://` they mean nothing.

    Raises:
        ValueError: No backend has this scheme, or its backend cannot read the URL.
        ImportError: The driver is missing; the text says what to install.
    """
    maker = _find_maker(url)
    return MemoryBackend() if maker is None else maker[0](url, **options)


def one_time_keys_from_url(url: str, **options: Any) -> OneTimeKeys:  # noqa: ANN401  (the same)
    """
    Return the one-time keys, for `Tickets`, of the backend that a URL names.

    Args:
        url: As `backend_from_url` takes it.
        **options: Arguments of `RedisOneTimeKeys` and the others, as `prefix=`; for `memory://`
            they mean nothing.

    Raises:
        ValueError: No backend has this scheme, or its backend cannot read the URL.
        ImportError: The driver is missing; the text says what to install.
    """
    maker = _find_maker(url)
    return MemoryOneTimeKeys() if maker is None else maker[1](url, **options)


def _find_maker(url: str) -> _Maker | None:
    """Return what makes the objects for a URL; None: the memory of this process has them."""
    before, separator, _ = url.partition("://")
    scheme = before.partition("+")[0].lower() if separator else ""
    if scheme == "memory":
        return None
    if scheme not in _MAKERS:
        known = ", ".join(f"{name}://" for name in ("memory", *_MAKERS))
        raise ValueError(f"no backend has URLs that begin with {scheme!r}; there are {known}")
    return _MAKERS[scheme]
