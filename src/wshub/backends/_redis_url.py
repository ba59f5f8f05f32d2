"""From the URL of Redis to its servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, unquote

from wshub.backends._driver import needing
from wshub.backends._port import read_port
from wshub.backends._redis_link import CLASSIC, SHARDED
from wshub.backends._redis_servers import Address, Cluster, Maker, Sentinels, Single

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wshub.backends._redis_servers import Servers

__all__ = ("explain_refusals", "find_servers")

_URL = re.compile(
    r"(?P<scheme>(redis|valkey)(?P<tls>s)?)(\+(?P<kind>cluster|sentinel))?"
    r"://(?P<user>[^@/?#]*@)?(?P<hosts>[^@/?#]*)(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+)(:(?P<port>\d+))?")
_FORMS = (
    "redis://user:password@host:6379/0, rediss://… with TLS, redis+cluster://host:port,host:port "
    "or redis+sentinel://host:26379,host:26379/service/0"
)

_OURS: dict[str, object] = {
    "decode_responses": False,
    "health_check_interval": 0,
    "protocol": 2,  # in which a subscriber is answered alike by all versions of redis-py
    "retry": None,  # what is published again may arrive twice
    "retry_on_error": (),
    "retry_on_timeout": False,
    "socket_connect_timeout": None,
    "socket_timeout": None,  # redis-py 8 would end a subscriber that hears nothing for 5 seconds
}
"""Options of redis-py's connections that are not the user's: deadlines are the supervisor's."""

_OBJECTS = {
    *("connection_class", "credential_provider", "driver_info", "encoder_class"),
    *("event_dispatcher", "maint_notifications_config", "parser_class", "redis_connect_func"),
    *("retry", "retry_on_error", "socket_keepalive_options"),
}
"""Options that are no text. redis-py takes one all the same, and stumbles when it connects."""


def find_servers(url: str, *, sharded: bool | None, options: Mapping[str, object]) -> Servers:
    """
    Return where the servers are that `url` tells of. Nothing is connected.

    Raises:
        ValueError: It cannot be read. The text does not repeat it: there is a password in it.
        ImportError: redis-py is missing.
    """
    with needing("RedisBackend", "redis"):
        from redis.asyncio.connection import ConnectionPool  # noqa: PLC0415  (an extra)

    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"this is no URL of Redis; use {_FORMS}")
    kind, path = (found["kind"] or "").lower(), (found["path"] or "").strip("/")
    addresses = _read_hosts(found["hosts"], 26379 if kind == "sentinel" else 6379)
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("redis+sentinel:// needs the name of the service as its path")
    _check_names(found["query"] or "")
    # redis-py knows one host, and reads the rest.
    host, port = addresses[0]
    written = f"[{host}]" if ":" in host else host
    rest = f"{found['user'] or ''}{written}:{port}/{path}?{found['query'] or ''}"
    from_url = cast("Callable[..., ConnectionPool]", ConnectionPool.from_url)  # pyright: ignore[reportUnknownMemberType]
    pool = from_url(f"{'rediss' if found['tls'] else 'redis'}://{rest}", **{**options, **_OURS})
    settings = {**pool.connection_kwargs, **_OURS}  # those of a URL come last in a pool
    sentinel = {
        name.removeprefix("sentinel_"): settings.pop(name)
        for name in list(settings)
        if name.startswith("sentinel_")
    }
    sharded = kind == "cluster" if sharded is None else sharded
    maker = Maker(pool.connection_class, settings, SHARDED if sharded else CLASSIC)
    _check_options(maker, sentinel)
    if kind == "cluster":
        return Cluster(maker, addresses)
    if kind == "sentinel":
        plain = {"username": None, "password": None, "db": 0}
        return Sentinels(maker, addresses, unquote(service), plain | sentinel)
    if len(addresses) > 1:
        raise ValueError(f"more than one host needs another form; use {_FORMS}")
    return Single(maker)


def explain_refusals() -> dict[type[BaseException], str]:
    """Return what is wrong if redis-py raises one of these while it connects."""
    from redis import exceptions  # noqa: PLC0415  (an extra)

    login = "it refuses the user or the password"
    return {
        exceptions.AuthenticationError: login,
        exceptions.AuthenticationWrongNumberOfArgsError: login,
        exceptions.AuthorizationError: login,
        exceptions.InvalidResponse: "what answers there is not Redis",
        exceptions.NoPermissionError: "the user may not use pub/sub on these channels",
        exceptions.ResponseError: "it refuses a command",
    }


def _check_names(query: str) -> None:
    """Raise ValueError for options that a URL cannot have."""
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name in _OBJECTS:
            raise ValueError(f"{name} cannot be part of a URL")


def _check_options(maker: Maker, sentinel: Mapping[str, object]) -> None:
    """Raise ValueError for what redis-py does not take, or what would be an outage to it."""
    from redis.exceptions import RedisError  # noqa: PLC0415  (an extra)

    try:
        connection: Any = maker.make()
        maker.make(None, **sentinel)
        "".encode(connection.encoder.encoding)
    except TypeError as error:
        raise ValueError(f"redis-py does not know an option: {error}") from error
    except (LookupError, RedisError) as error:
        raise ValueError(f"redis-py does not take an option: {error}") from error
    size = maker.options.get("socket_read_size", 1)
    if not isinstance(size, int) or size < 1:
        raise ValueError("socket_read_size is a positive number of bytes")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = maker.options.get(name)
        if path is not None:
            try:
                Path(str(path)).read_bytes()
            except OSError as error:
                raise ValueError(f"{name} cannot be read: {error}") from error
    if hasattr(connection, "ssl_context"):
        try:
            connection.ssl_context.get()
        except (OSError, ValueError) as error:
            raise ValueError(f"an option of TLS cannot be used: {error}") from error


def _read_hosts(hosts: str, usual: int) -> list[Address]:
    addresses: list[Address] = []
    for text in hosts.split(","):
        found = _HOST.fullmatch(text or "localhost")
        if found is None:
            raise ValueError(f"a host and port of this URL cannot be read; use {_FORMS}")
        # Brackets keep an address of IPv6 and its port apart, and are no part of it.
        addresses.append(Address(found["host"].strip("[]"), read_port(found["port"] or str(usual))))
    return addresses
