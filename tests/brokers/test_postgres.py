"""What is PostgreSQL's own: rows for long messages, names, connections, roles."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trustme

from tests.brokers.kinds import POSTGRES
from tests.brokers.proxy import Proxy
from wshub import BackendLost, BackendRefused, BackendRegained
from wshub.backends import PostgresBackend, backend_from_url
from wshub.backends._postgres_link import READ_AHEAD
from wshub.backends._postgres_servers import PostgresServers
from wshub.backends.base import Receiver
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.brokers.kinds import Broker, Kind
    from tests.brokers.postgres_server import PostgresServer
    from wshub.events import Event, SkipReason
    from wshub.messages import Envelope

LONG = "x" * 9000
"""More than a notification takes."""


@pytest.fixture(scope="session")
def postgres(started: Callable[[Kind], Broker]) -> PostgresServer:
    return cast("PostgresServer", started(POSTGRES))


@pytest.fixture
def table(prefix: str) -> str:
    return f"{prefix}_spilled"


@asynccontextmanager
async def working(*backends: PostgresBackend) -> AsyncGenerator[list[Worker], None]:
    """Start backends, all at once."""
    workers = [Worker(backend) for backend in backends]
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.push_async_callback(worker.backend.stop)
        await asyncio.gather(*(worker.backend.start() for worker in workers))
        yield workers


def rows(postgres: PostgresServer, table: str) -> int:
    (row,) = postgres.ask(f'SELECT count(*) FROM "{table}"')  # noqa: S608
    return int(row[0])


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
        postgres.ask(f"UPDATE \"{table}\" SET published = now() - interval '31 seconds'")  # noqa: S608
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
        postgres.ask(f"UPDATE \"{table}\" SET published = now() - interval '31 seconds'")  # noqa: S608
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
            postgres.ask(f'DELETE FROM "{table}"')  # noqa: S608
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


@pytest.fixture
def guest(postgres: PostgresServer, prefix: str) -> str:
    """The URL for a role that may do nothing but log in."""
    postgres.ask(f"CREATE ROLE {prefix} LOGIN PASSWORD 'guest'")
    at = postgres.url.rpartition("@")[2]
    return f"postgresql://{prefix}:guest@{at}"


async def refusal(backend: PostgresBackend) -> str:
    """Return why a backend cannot start."""
    Worker(backend)
    with pytest.raises(BackendRefused) as refused:
        await backend.start()
    assert not backend.health().ready
    return refused.value.problem


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


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "session is read-only"),
        ({"target_session_attrs": "any"}, "cannot execute CREATE TABLE in a read-only transaction"),
    ],
)
async def test_a_server_that_takes_nothing(
    postgres: PostgresServer, guest: str, prefix: str, options: dict[str, str], problem: str
) -> None:
    """As a standby, which may become the primary: it is waited for."""
    postgres.ask(f"GRANT CREATE ON SCHEMA public TO {prefix}")
    postgres.ask(f"ALTER ROLE {prefix} SET default_transaction_read_only = on")
    worker = Worker(PostgresBackend(guest, prefix=prefix, options=options))
    try:
        await worker.backend.start()
        assert not worker.backend.health().ready
        assert problem in str(worker.backend.health().problem)
        postgres.ask(f"ALTER ROLE {prefix} RESET default_transaction_read_only")
        await until(lambda: worker.backend.health().ready)
    finally:
        await worker.backend.stop()


@pytest.mark.one_loop
async def test_a_server_that_ends_idle_sessions(
    postgres: PostgresServer, guest: str, prefix: str
) -> None:
    """Ours are idle when nothing happens, and stay."""
    postgres.ask(f"GRANT CREATE ON SCHEMA public TO {prefix}")
    postgres.ask(f"ALTER ROLE {prefix} SET idle_session_timeout = '300ms'")
    async with working(PostgresBackend(guest, prefix=prefix)) as (worker,):
        await asyncio.sleep(1)
        assert worker.backend.health().ready
        assert worker.events == []


@pytest.mark.parametrize("compared", ["=", "<>"], ids=["that listens", "that publishes"])
async def test_one_connection_that_is_cut(
    postgres: PostgresServer, prefix: str, compared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed at once, whichever of the two it is, and not only by the next probe."""
    monkeypatch.setattr("wshub.backends._supervisor.PROBE_INTERVAL", 60.0)
    url = f"{postgres.url}?application_name={prefix}"
    async with working(PostgresBackend(url, prefix=prefix)) as (worker,):
        await worker.subscribe("room", "tea")
        ours = "FROM pg_stat_activity WHERE application_name = %s AND"
        ((listening,),) = postgres.ask(f"SELECT pid {ours} query LIKE 'LISTEN%%'", prefix)
        end = f"SELECT pg_terminate_backend(pid) {ours} pid {compared} %s"
        postgres.ask(end, prefix, listening)
        await until(lambda: len(worker.events) == 2)
        loss, regain = worker.events
        assert isinstance(loss, BackendLost)
        assert loss.problem == "terminating connection due to administrator command"
        assert isinstance(regain, BackendRegained)
        await worker.publish("tea", "room", "tea")
        await worker.reached_by("tea")


async def test_what_is_larger_than_a_socket_takes_goes_out_bit_by_bit(
    postgres: PostgresServer,
) -> None:
    """The event loop writes the rest as the server reads."""
    link = await PostgresServers(postgres.url, {}).connect()
    try:
        with socket.fromfd(link._socket, socket.AF_INET, socket.SOCK_STREAM) as narrow:
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        large = bytes(range(256)) * 4000
        asking = asyncio.create_task(link.ask(b"SELECT $1::bytea", large))
        await asyncio.sleep(0)
        assert link._pgconn.flush() == 1
        assert (await asking).get_value(0, 0) == large
    finally:
        link.close()


async def test_a_flood_stays_with_the_server_until_it_is_read(postgres: PostgresServer) -> None:
    """Memory holds what is being taken, and not all that was ever sent."""
    link = await PostgresServers(postgres.url, {}).connect()
    try:
        await link.ask(b"LISTEN flood")
        postgres.ask(
            "SELECT pg_notify('flood', g || repeat('x', 7000)) FROM generate_series(1, 5000) g"
        )
        assert await link.receive() == b"1" + b"x" * 7000
        await asyncio.sleep(0.05)
        assert len(link._arrived) < 500
        for number in range(2, 5001):
            assert (await link.receive()).startswith(b"%dx" % number)
    finally:
        link.close()


async def test_a_flood_stays_with_the_server_while_it_is_asked(postgres: PostgresServer) -> None:
    """The answer is behind all of it, and comes as soon as that is taken."""
    link = await PostgresServers(postgres.url, {}).connect()
    try:
        await link.ask(b"LISTEN flood")
        postgres.ask(
            "SELECT pg_notify('flood', g || repeat('x', 7000)) FROM generate_series(1, 5000) g"
        )
        asking = asyncio.create_task(link.ask(b"LISTEN other"))
        await until(lambda: len(link._arrived) >= READ_AHEAD)
        await asyncio.sleep(0.1)
        assert len(link._arrived) < READ_AHEAD + 100
        assert not asking.done()
        for number in range(1, 5001):
            assert (await link.receive()).startswith(b"%dx" % number)
        await asking
    finally:
        link.close()


async def test_what_others_notify_is_skipped(postgres: PostgresServer, prefix: str) -> None:
    """Text that is none of ours, and bytes that are no envelope."""
    async with working(PostgresBackend(postgres.url, prefix=prefix)) as (worker,):
        for text in ("hello", "", "b0:*", "s0:beef", f"s0:{32 * 'a'}", "t0:", "t0:[]"):
            postgres.notify(prefix, "everyone", "", text)
        await worker.publish("ours")
        await worker.reached_by("ours")
        assert worker.skipped == ["malformed"] * 7
        assert worker.events == []


class TlsProxy(Proxy):
    """Speaks PostgreSQL's TLS in front of a server that does not."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        super().__init__(target)
        self._context = context

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"  # SSLRequest
        writer.write(b"S")
        await writer.start_tls(self._context)
        await super()._connect(reader, writer)


async def test_it_speaks_tls(postgres: PostgresServer, prefix: str, tmp_path: Any) -> None:
    """With certificates as `sslmode` says; one that is not trusted is refused."""
    authority = trustme.CA()
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with TlsProxy(postgres.port, context).running() as server:
        url = POSTGRES.at(postgres.url, server.port)
        verified = {"sslmode": "verify-full", "sslrootcert": str(root)}
        async with working(
            PostgresBackend(f"{url}?sslmode=require", prefix=prefix),
            PostgresBackend(url, prefix=prefix, options=verified),
        ) as (here, there):
            for worker in (here, there):
                await worker.publish("short")
                await worker.publish("long" * 50_000)
            for worker in (here, there):
                await worker.is_delivered(4)
                assert worker.events == []
        untrusted = {"sslmode": "verify-full", "sslrootcert": str(stranger)}
        problem = await refusal(PostgresBackend(url, options=untrusted))
        assert problem.startswith("its certificate is not trusted; see sslmode and sslrootcert (")
        problem = await refusal(
            PostgresBackend(url.replace("127.0.0.1", "localhost"), options=verified)
        )
        assert problem.startswith("its certificate is not trusted; see sslmode and sslrootcert (")
    problem = await refusal(PostgresBackend(f"{postgres.url}?sslmode=require"))
    assert problem.startswith("it does not speak TLS; see sslmode (")


@pytest.mark.one_loop
async def test_several_hosts(postgres: PostgresServer, prefix: str) -> None:
    """One that is silent does not keep the other away."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = postgres.url.replace("@", f"@127.0.0.1:{port},")
        worker = Worker(PostgresBackend(url, prefix=prefix))
        try:
            await worker.backend.start()
            await until(lambda: worker.backend.health().ready, timeout=5)
            await worker.publish("hi")
            await worker.reached_by("hi")
        finally:
            await worker.backend.stop()


async def test_an_event_loop_that_does_not_watch_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows' default one: the app does not start, and says which it needs."""
    kind = type(asyncio.get_running_loop())
    monkeypatch.setattr(asyncio, "ProactorEventLoop", kind, raising=False)
    problem = await refusal(PostgresBackend("postgresql://localhost"))
    assert "uvicorn --loop asyncio:SelectorEventLoop" in problem


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("mysql://localhost", {}, "this is no URL of PostgreSQL; use postgresql://"),
        ("host=localhost password=s3cret", {}, "this is no URL of PostgreSQL; use postgresql://"),
        ("postgresql://u:s3cret@here@localhost/db", {}, "write @ as %40 and / as %2F"),
        ("postgresql://u:s3cret/here@localhost/db", {}, "write @ as %40 and / as %2F"),
        ("postgresql://u:s3cret@localhost/db?colour=red", {}, 'parameter: "colour"; use'),
        ("postgresql://u:s3cret@localhost/db", {"colour": "red"}, '"colour"; use'),
    ],
)
def test_a_url_that_cannot_be_read(url: str, options: dict[str, str], problem: str) -> None:
    """It says why, and does not repeat the password."""
    with pytest.raises(ValueError, match=r"PostgreSQL|%40") as error:
        PostgresBackend(url, options=options)
    assert problem in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_a_url_as_settings_have_it(
    postgres: PostgresServer, prefix: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also as SQLAlchemy writes it; its password is told to nobody."""
    caplog.set_level(logging.DEBUG)
    backend = backend_from_url(postgres.url.replace("postgresql", scheme, 1), prefix=prefix)
    assert isinstance(backend, PostgresBackend)
    async with working(backend) as (worker,):
        await worker.publish("hi")
        await worker.reached_by("hi")
    assert "sesame" not in caplog.text + repr(backend)


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    for name in [name for name in sys.modules if name.startswith("wshub.backends._postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"needs psycopg; pip install 'wshub\[postgres\]'"):
        PostgresBackend("postgresql://localhost")
