"""What is longer than a notification: the rows in which it waits, and their table."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.brokers.outcomes import refusal, working
from wshub.backends import PostgresBackend
from wshub.backends.base import Receiver
from wshub.testing import until

if TYPE_CHECKING:
    from tests.brokers.postgres_server import PostgresServer
    from wshub.events import Event, SkipReason
    from wshub.messages import Envelope
    from wshub.testing._worker import Worker

LONG = "x" * 9000
"""More than a notification takes."""


@pytest.fixture
def table(prefix: str) -> str:
    return f"{prefix}_spilled"


def rows(postgres: PostgresServer, table: str) -> int:
    (row,) = postgres.ask(f'SELECT count(*) FROM "{table}"')  # noqa: S608  (a name of ours)
    return int(row[0])


def let_expire(postgres: PostgresServer, table: str) -> None:
    """Make all rows a second older than they may become."""
    age = f"UPDATE \"{table}\" SET published = now() - interval '31 seconds'"  # noqa: S608  (the same)
    postgres.ask(age)


async def test_a_message_may_be_as_long_as_it_likes(
    postgres: PostgresServer, prefix: str, table: str
) -> None:
    """Up to a notification's 7,999 bytes it needs no row, beyond it does, and none is cut off."""
    backends = [PostgresBackend(postgres.url, prefix=prefix) for _ in range(2)]
    async with working(*backends) as (here, there):
        fitting = ["y" * 7900, "ä" * 2900]
        for text in fitting:
            await here.publish(text)
        assert rows(postgres, table) == 0
        near = ["y" * size for size in range(7940, 8010)]
        near += ["ä" * size for size in range(2970, 3010)]
        await asyncio.gather(*map(here.publish, near))
        assert 30 < rows(postgres, table) < 90
        longest = bytes(range(256)) * 4000
        await here.publish(longest)
        for worker in (here, there):
            await worker.reached_by(*fitting, *near, longest)


async def test_long_messages_stay_in_order(postgres: PostgresServer, prefix: str) -> None:
    """Among short ones, from several workers at once: a row is there when its turn comes."""
    backends = [PostgresBackend(postgres.url, prefix=prefix) for _ in range(3)]
    async with working(*backends) as workers:

        async def talk(name: int, worker: Worker) -> None:
            for number in range(60):
                await worker.publish(f"{name} {number} " + LONG * (number % 2))

        await asyncio.gather(*(talk(*named) for named in enumerate(workers)))
        for worker in workers:
            await worker.is_delivered(180)
            assert worker.texts == workers[0].texts
        for name in range(3):
            own = [str(text).split()[:2] for text in workers[0].texts]
            numbers = [int(number) for who, number in own if who == str(name)]
            assert numbers == list(range(60))


async def test_messages_that_are_alike_all_arrive(postgres: PostgresServer, prefix: str) -> None:
    """PostgreSQL folds what is alike in one transaction, and many messages may share one."""
    async with working(PostgresBackend(postgres.url, prefix=prefix)) as (worker,):
        await asyncio.gather(*(worker.publish("the same") for _ in range(300)))
        await worker.publish("the end")
        await worker.reached_by(*["the same"] * 300, "the end")


async def test_a_long_message_is_one_notification_and_one_row(
    postgres: PostgresServer, prefix: str, table: str
) -> None:
    """However many workers read it."""
    backends = [PostgresBackend(postgres.url, prefix=prefix) for _ in range(3)]
    async with working(*backends) as workers:
        for worker in workers:
            await worker.subscribe("room", "tea")
        with postgres.counting(prefix) as channels:
            await workers[0].publish(LONG, "room", "tea")
            for worker in workers:
                await worker.reached_by(LONG)
        assert channels == [f"{prefix}:room:tea"]
        assert rows(postgres, table) == 1


async def test_rows_that_have_expired_are_deleted(
    postgres: PostgresServer, prefix: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By any worker, also one that publishes nothing; younger ones stay."""
    monkeypatch.setattr("wshub.backends._postgres_table.CLEAN_INTERVAL", 0.0)
    async with working(PostgresBackend(postgres.url, prefix=prefix)) as (worker,):
        await asyncio.gather(*(worker.publish(LONG) for _ in range(200)))
        let_expire(postgres, table)
        await until(lambda: rows(postgres, table) == 0)  # a probe does it, or two
        await worker.publish(LONG)
        for _ in range(3):
            await worker.publish("short")
        assert rows(postgres, table) == 1


async def test_rows_of_workers_that_have_gone_are_deleted_by_the_next(
    postgres: PostgresServer, prefix: str, table: str
) -> None:
    """When it starts; while it runs it looks every now and then."""
    async with working(PostgresBackend(postgres.url, prefix=prefix)) as (worker,):
        await worker.publish(LONG)
        let_expire(postgres, table)
        await worker.publish("short")
        assert rows(postgres, table) == 1
    async with working(PostgresBackend(postgres.url, prefix=prefix)):
        assert rows(postgres, table) == 0


async def test_a_message_whose_row_has_gone_is_skipped(
    postgres: PostgresServer, prefix: str, table: str
) -> None:
    """It is counted, and what follows arrives: a stranger may have made it up."""
    reading = asyncio.Event()
    delivered: list[Envelope] = []
    events: list[Event] = []
    skipped: list[SkipReason] = []

    async def deliver(envelope: Envelope) -> None:
        delivered.append(envelope)
        await reading.wait()

    late = PostgresBackend(postgres.url, prefix=prefix)
    late.attach(Receiver(deliver, events.append, skipped.append))
    late.subscribe("everyone", "")
    async with working(PostgresBackend(postgres.url, prefix=prefix)) as (worker,):
        await late.start()
        await late.subscribed("everyone", "")
        try:
            await worker.publish("short")
            await until(lambda: delivered)
            await worker.publish(LONG)
            await worker.is_delivered(2)
            postgres.ask(f'DELETE FROM "{table}"')  # noqa: S608  (the same)
            await worker.publish(LONG)
            reading.set()
            await until(lambda: len(delivered) == 2)
            assert (skipped, events) == (["malformed"], [])
        finally:
            await late.stop()


async def test_prefixes_that_are_too_long_for_a_table_have_their_own(
    postgres: PostgresServer,
) -> None:
    """Where names would be cut off, tenants would meet."""
    prefixes = ["p" * 64, "p" * 63 + "q"]
    backends = [PostgresBackend(postgres.url, prefix=prefix) for prefix in prefixes]
    async with working(*backends) as (here, there):
        for number, worker in enumerate((here, there)):
            await worker.subscribe("room", "r" * 255)
            await worker.publish(f"{number}" + LONG, "room", "r" * 255)
        await here.reached_by("0" + LONG)
        await there.reached_by("1" + LONG)
    tables = postgres.ask("SELECT 1 FROM pg_class WHERE relname LIKE 'pppp%' AND relkind = 'r'")
    assert len(tables) == 2


async def test_workers_that_start_together_make_one_table(
    postgres: PostgresServer, prefix: str, table: str
) -> None:
    """None of them stumbles over another."""
    backends = [PostgresBackend(postgres.url, prefix=prefix) for _ in range(8)]
    async with working(*backends) as workers:
        assert rows(postgres, table) == 0
        assert all(worker.backend.health().ready for worker in workers)
        assert all(worker.events == [] for worker in workers)


async def test_a_role_that_may_not_create_the_table(
    postgres: PostgresServer, guest: str, prefix: str, table: str
) -> None:
    """The app does not start, and says what an administrator has to do; that is enough."""
    problem = await refusal(PostgresBackend(guest, prefix=prefix))
    _, asked, rest = problem.partition("let its administrator do it: ")
    assert asked
    postgres.ask(rest.rpartition(" (")[0])
    assert await refusal(PostgresBackend(guest, prefix=prefix)) == (
        f"it refuses the table {table}; GRANT SELECT, INSERT, UPDATE and DELETE to the user"
    )
    postgres.ask(f'GRANT SELECT, INSERT, UPDATE, DELETE ON "{table}" TO {prefix}')
    async with working(PostgresBackend(guest, prefix=prefix)) as (worker,):
        await worker.publish(LONG)
        await worker.reached_by(LONG)


async def test_a_table_that_is_not_ours(postgres: PostgresServer, prefix: str, table: str) -> None:
    """Is left alone."""
    postgres.ask(f'CREATE TABLE "{table}" (id int)')
    problem = await refusal(PostgresBackend(postgres.url, prefix=prefix))
    assert problem.startswith(f"it has a table {table} that is not ours; choose another prefix")
