"""Servers between workers: one of each kind for a process that runs tests, or one for a test."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, cast

import pytest

from tests.brokers.kinds import KINDS, NATS, POSTGRES, Broker, Kind, OwnBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.brokers.postgres_server import PostgresServer


def demand(kind: Kind, *, own: bool = False) -> None:
    """
    Skip a test if there is no server for it, or fail it where that must not be.

    Args:
        kind: What it needs.
        own: Whether it hurts the server, which then has to be started here.
    """
    is_given = bool(os.environ.get(kind.variable)) and not own
    if kind.missing is None or is_given:
        return
    if os.environ.get(kind.requires):
        pytest.fail(kind.missing)
    pytest.skip(kind.missing)


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of broker in turn."""
    chosen: Kind = request.param
    demand(chosen)
    return chosen


@pytest.fixture(scope="session")
def started() -> Generator[Callable[[Kind], Broker], None, None]:
    """Start a server of a kind when it is first asked for; stop them all at the end."""
    running: dict[str, Broker] = {}

    def start(kind: Kind) -> Broker:
        demand(kind)
        if kind.name not in running:
            running[kind.name] = kind.find()
            running[kind.name].start()
        return running[kind.name]

    yield start
    for broker in running.values():
        broker.stop()


@pytest.fixture(scope="session")
def broker(kind: Kind, started: Callable[[Kind], Broker]) -> Broker:
    """A server that other tests use, too."""
    return started(kind)


@pytest.fixture
def nats(started: Callable[[Kind], Broker]) -> Broker:
    """A NATS server that other tests use, too."""
    return started(NATS)


@pytest.fixture
def postgres(started: Callable[[Kind], Broker]) -> PostgresServer:
    """A PostgreSQL server that other tests use, too."""
    return cast("PostgresServer", started(POSTGRES))


@pytest.fixture
def guest(postgres: PostgresServer, prefix: str) -> str:
    """The URL for a role that may do nothing but log in."""
    postgres.ask(f"CREATE ROLE {prefix} LOGIN PASSWORD 'guest'")
    at = postgres.url.rpartition("@")[2]
    return f"postgresql://{prefix}:guest@{at}"


@pytest.fixture
def tenant(postgres: PostgresServer, guest: str, prefix: str) -> str:
    """The URL for a role that may create tables, too."""
    postgres.ask(f"GRANT CREATE ON SCHEMA public TO {prefix}")
    return guest


@pytest.fixture
def own_broker(kind: Kind) -> Generator[OwnBroker, None, None]:
    """A server that nobody else uses, and that may be hurt."""
    demand(kind, own=True)
    server = kind.launch()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def prefix() -> str:
    """Keeps the channels of one test apart from those of others."""
    return f"t{secrets.token_hex(6)}"
