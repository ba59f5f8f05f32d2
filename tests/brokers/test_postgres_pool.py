"""The connections to PostgreSQL that come and go, from psycopg's pool."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.brokers.outcomes import working
from tests.ports import free_port
from wshub.backends import PostgresBackend
from wshub.backends._broker import NothingSent
from wshub.backends._postgres_pool import PostgresPool
from wshub.backends._postgres_servers import PostgresServers
from wshub.testing import until, wait_until
from wshub.testing._worker import Worker
from wshub.testing.deadline import deadline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.brokers.postgres_server import PostgresServer

LONG = "x" * 9000
"""More than a notification takes."""


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresPool, None]:
    """Open a pool, and close it at the end of the block; no task of it is left."""
    tasks = asyncio.all_tasks()
    pool = PostgresPool(PostgresServers(url, {}))
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()
        assert asyncio.all_tasks() == tasks


@asynccontextmanager
async def accepting(silent: socket.socket) -> AsyncGenerator[None, None]:
    """Take a connection, and say nothing on it for the length of the block."""
    silent.settimeout(0)
    async with deadline(10, "a connection"):
        peer, _ = await asyncio.get_running_loop().sock_accept(silent)
    with peer:
        yield


def sessions(postgres: PostgresServer, name: str) -> list[int]:
    """Return the processes of the server for connections that call themselves so, by age."""
    found = postgres.ask(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY backend_start", name
    )
    return [pid for (pid,) in found]


async def test_a_connection_that_is_cut_while_nothing_is_published(
    postgres: PostgresServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes its place, and nobody notices."""
    monkeypatch.setattr("wshub.backends._supervisor.PROBE_INTERVAL", 60.0)
    url = f"{postgres.url}?application_name={prefix}"
    async with working(PostgresBackend(url, prefix=prefix)) as (worker,):
        listening, publishing = sessions(postgres, prefix)
        postgres.ask("SELECT pg_terminate_backend(%s)", publishing)
        await until(lambda: sessions(postgres, prefix) == [listening])
        await worker.publish("short")
        await worker.publish(LONG)
        await worker.reached_by("short", LONG)
        assert worker.events == []
        assert sessions(postgres, prefix)[0] == listening


async def test_statements_do_not_wait_for_each_other(postgres: PostgresServer) -> None:
    """What is long is fetched while something is published; closing waits for neither."""
    async with opened(postgres.url) as pool:
        slow = asyncio.create_task(pool.ask(b"SELECT pg_sleep(60)"))
        for _ in range(20):
            answer = await pool.ask(b"SELECT 'quick'")
            assert answer.get_value(0, 0) == b"quick"
        assert not slow.done()
        await pool.close()
        with pytest.raises(ConnectionError, match="the connection to PostgreSQL is closed"):
            await slow


async def test_there_are_no_more_connections_than_it_takes(
    postgres: PostgresServer, prefix: str
) -> None:
    """One listens and one publishes, and the same ones stay, however much there is."""
    url = f"{postgres.url}?application_name={prefix}"
    async with working(PostgresBackend(url, prefix=prefix)) as (worker,):
        two = sessions(postgres, prefix)
        assert len(two) == 2
        for number in range(20):
            await worker.publish(f"{number}")
        await worker.is_delivered(20)
        assert sessions(postgres, prefix) == two


async def test_statements_share_two_connections(postgres: PostgresServer, prefix: str) -> None:
    """Those that find none wait for one."""
    async with opened(f"{postgres.url}?application_name={prefix}") as pool:
        await asyncio.gather(*(pool.ask(b"SELECT pg_sleep(0.01)") for _ in range(20)))
        assert len(sessions(postgres, prefix)) == 2


async def test_a_role_that_may_connect_no_more_than_twice(
    postgres: PostgresServer, tenant: str, prefix: str
) -> None:
    """What is long is fetched when the connection that publishes is free."""
    postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 2")
    async with working(PostgresBackend(tenant, prefix=prefix)) as (worker,):
        texts = [f"{number}{LONG}" for number in range(300)]
        await asyncio.gather(*map(worker.publish, texts))
        await worker.reached_by(*texts)
        assert worker.events == []


@pytest.mark.one_loop
async def test_a_role_that_may_connect_only_once(
    postgres: PostgresServer, tenant: str, prefix: str
) -> None:
    """Health says what the server objects to, and what is published meanwhile is not lost."""
    postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 1")
    backend = PostgresBackend(tenant, prefix=prefix, publish_timeout=10)
    async with working(backend) as (worker,):
        assert not worker.backend.health().ready
        assert f'too many connections for role "{prefix}"' in str(worker.backend.health().problem)
        publishing = asyncio.create_task(worker.publish("hi"))
        postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 2")
        await publishing
        await worker.reached_by("hi")


@pytest.mark.one_loop
async def test_a_connection_that_cannot_be_replaced(
    postgres: PostgresServer, tenant: str, prefix: str
) -> None:
    """What was to be published on it has not left, and is published when the server is back."""
    url = f"{tenant}?application_name={prefix}"
    backend = PostgresBackend(url, prefix=prefix, publish_timeout=10)
    async with working(backend) as (worker,):
        postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 1")
        postgres.ask("SELECT pg_terminate_backend(%s)", sessions(postgres, prefix)[1])
        await until(lambda: len(sessions(postgres, prefix)) == 1)
        publishing = asyncio.create_task(worker.publish("hi"))
        await until(lambda: worker.events)
        assert f'too many connections for role "{prefix}"' in str(worker.events[0])
        postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 2")
        await publishing
        await worker.reached_by("hi")


async def test_a_server_that_grants_one_and_does_not_answer(
    postgres: PostgresServer, guest: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it does not grant another is not what is wrong."""
    monkeypatch.setattr("wshub.backends._postgres_pool.WAITING", 0.3)
    postgres.ask(f"ALTER ROLE {prefix} CONNECTION LIMIT 1")
    async with opened(f"{guest}?application_name={prefix}") as pool:
        slow = asyncio.create_task(pool.ask(b"SELECT pg_sleep(60)"))
        await until(lambda: sessions(postgres, prefix))
        with pytest.raises(NothingSent, match="the server does not answer"):
            await pool.ask(b"SELECT 1")
        await pool.close()
        with pytest.raises(ConnectionError):
            await slow


async def test_a_connection_that_nobody_waits_for_any_more(
    postgres: PostgresServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation that comes as it is given out leaves it to the pool's end."""
    get = AsyncConnectionPool.getconn
    got = asyncio.Event()

    async def get_and_keep_a_cancellation(pool: Any, timeout: float | None = None) -> Any:
        connection = await get(pool, timeout)
        got.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return connection

    monkeypatch.setattr(AsyncConnectionPool, "getconn", get_and_keep_a_cancellation)
    async with opened(f"{postgres.url}?application_name={prefix}") as pool:
        asking = asyncio.create_task(pool.ask(b"SELECT 1"))
        await got.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await pool.close()
        await until(lambda: sessions(postgres, prefix) == [])


def test_an_event_loop_that_ends_without_a_stop(postgres: PostgresServer, prefix: str) -> None:
    """Its connections end with it."""
    backend = PostgresBackend(f"{postgres.url}?application_name={prefix}", prefix=prefix)
    worker = Worker(backend)
    asyncio.run(worker.backend.start())
    wait_until(lambda: sessions(postgres, prefix) == [], awaited="the sessions to end")


@pytest.mark.one_loop
async def test_an_attempt_that_failed_is_not_what_fails_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that was not there, and now does not answer, does not seem not to be there."""
    monkeypatch.setattr("wshub.backends._postgres_pool.WAITING", 0.3)
    port = free_port()
    async with opened(f"postgresql://127.0.0.1:{port}") as pool:
        with pytest.raises(NothingSent, match="refused"):
            await pool.ask(b"SELECT 1")
        with socket.create_server(("127.0.0.1", port)) as silent:
            async with accepting(silent):
                with pytest.raises(NothingSent, match="the server does not answer"):
                    await pool.ask(b"SELECT 1")
                await pool.close()


async def test_it_may_be_closed_while_it_connects() -> None:
    """To a server that never answers: no task of it goes on."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with opened(f"postgresql://127.0.0.1:{silent.getsockname()[1]}") as pool:
            asking = asyncio.create_task(pool.ask(b"SELECT 1"))
            async with accepting(silent):
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                await pool.close()
