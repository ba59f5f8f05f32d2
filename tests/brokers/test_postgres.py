"""What is PostgreSQL's own: its connections, and how it is told where it is."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.brokers.kinds import POSTGRES
from tests.brokers.outcomes import refusal, working
from tests.brokers.proxy import Proxy
from wshub import BackendLost, BackendRegained
from wshub.backends import PostgresBackend, backend_from_url
from wshub.backends._postgres_link import READ_AHEAD
from wshub.backends._postgres_servers import PostgresServers
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from tests.brokers.postgres_server import PostgresServer


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "session is read-only"),
        ({"target_session_attrs": "any"}, "cannot execute CREATE TABLE in a read-only transaction"),
    ],
)
async def test_a_server_that_takes_nothing(
    postgres: PostgresServer, tenant: str, prefix: str, options: dict[str, str], problem: str
) -> None:
    """As a standby, which may become the primary: it is waited for."""
    postgres.ask(f"ALTER ROLE {prefix} SET default_transaction_read_only = on")
    backend = PostgresBackend(tenant, prefix=prefix, options=options)
    async with working(backend) as (worker,):
        assert not worker.backend.health().ready
        assert problem in str(worker.backend.health().problem)
        postgres.ask(f"ALTER ROLE {prefix} RESET default_transaction_read_only")
        await until(lambda: worker.backend.health().ready)


@pytest.mark.one_loop
async def test_a_server_that_ends_idle_sessions(
    postgres: PostgresServer, tenant: str, prefix: str
) -> None:
    """Ours are idle when nothing happens, and stay."""
    postgres.ask(f"ALTER ROLE {prefix} SET idle_session_timeout = '300ms'")
    async with working(PostgresBackend(tenant, prefix=prefix)) as (worker,):
        await asyncio.sleep(1)
        assert worker.backend.health().ready
        assert worker.events == []


async def test_the_connection_that_listens_is_cut(
    postgres: PostgresServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed at once, and not only by the next probe."""
    monkeypatch.setattr("wshub.backends._supervisor.PROBE_INTERVAL", 60.0)
    url = f"{postgres.url}?application_name={prefix}"
    async with working(PostgresBackend(url, prefix=prefix)) as (worker,):
        await worker.subscribe("room", "tea")
        postgres.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND query LIKE 'LISTEN%%'",
            prefix,
        )
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


async def test_a_connection_that_has_failed_says_why(postgres: PostgresServer) -> None:
    """To whoever asks next."""
    link = await PostgresServers(postgres.url, {}).connect()
    link.close()
    for call in (link.ask(b"SELECT 1"), link.receive()):
        with pytest.raises(ConnectionError, match="the connection to PostgreSQL is closed"):
            await call


async def test_a_login_that_is_given_up_at_its_end(postgres: PostgresServer) -> None:
    """Its connection is closed; psycopg warns of one that is not."""
    async with Proxy(postgres.port).running() as server:
        server.last = b"idle_session_timeout"
        servers = PostgresServers(POSTGRES.at(postgres.url, server.port), {})
        connecting = asyncio.create_task(servers.connect())
        await until(lambda: server.dropping)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        gc.collect()


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
        ("postgresql://u:s3%cret@localhost/db", {}, "write % as %25"),
        ("postgresql://u@localhost/db?password=s3%cret", {}, "write % as %25"),
        ("postgresql://[s3cret:x/db", {}, "[ as %5B"),
        ("postgresql://u:s3cret@localhost:0/db", {}, "it is a number from 1 to 65535"),
        ("postgresql://u:s3cret@one:1,two:99999/db", {}, "a port cannot be read"),
        ("postgresql://u:s3cret/db", {}, "a port cannot be read"),
        ("postgresql://u:s3cret@one,/db", {"port": 65536}, "a port cannot be read"),
        ("postgresql://u:s3cret@one,two,three/db?port=1,2", {}, "2 port numbers to 3 hosts"),
        ("postgresql://u:s3cret@localhost/db?sslmode=maybe", {}, 'sslmode value: "maybe"'),
    ],
)
def test_a_url_that_cannot_be_read(url: str, options: dict[str, str], problem: str) -> None:
    """It says why, and does not repeat the password."""
    with pytest.raises(ValueError, match=r"PostgreSQL|%40|a port") as error:
        PostgresBackend(url, options=options)
    assert problem in str(error.value)
    assert "cret" not in str(error.value)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"client_encoding": "klingon"}, "client_encoding"),  # says the server
        ({"connect_timeout": "long"}, "connect_timeout"),  # says psycopg
        ({"keepalives_idle": "long"}, "keepalives_idle"),  # says libpq, once it has connected
    ],
)
async def test_a_parameter_that_only_shows_on_the_way(
    postgres: PostgresServer, options: dict[str, str], problem: str
) -> None:
    """The start fails: waiting would not help."""
    refused = await refusal(PostgresBackend(postgres.url, options=options))
    assert refused.startswith("it refuses a parameter (")
    assert problem in refused


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
