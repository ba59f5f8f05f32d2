"""A backend by its URL, as settings have it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from wshub.backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from wshub.backends.base import Backend

__all__ = ("backend_from_url",)

_NATS = ("wshub.backends.nats", "NatsBackend")
_POSTGRES = ("wshub.backends.postgres", "PostgresBackend")
_REDIS = ("wshub.backends.redis", "RedisBackend")

_BACKENDS = {
    "nats": _NATS,
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
}
"""Module and name of the backend for each scheme, without what follows a `+`."""


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
    before, separator, _ = url.partition("://")
    scheme = before.partition("+")[0].lower() if separator else ""
    if scheme == "memory":
        return MemoryBackend()
    if scheme not in _BACKENDS:
        known = ", ".join(f"{name}://" for name in ("memory", *_BACKENDS))
        raise ValueError(f"no backend has URLs that begin with {scheme!r}; there are {known}")
    module, name = _BACKENDS[scheme]
    make = cast("Callable[..., Backend]", getattr(importlib.import_module(module), name))
    return make(url, **options)
