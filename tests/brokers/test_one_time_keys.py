"""One-time keys of several workers, kept by each kind of server."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import HTTPConnection

from tests.brokers.fixtures import demand
from tests.brokers.kinds import NATS, POSTGRES, SIMPLE
from tests.brokers.nats_server import NatsServer, connected
from wshub import BackendUnavailable
from wshub.auth import InvalidCredential, Principal, Tickets
from wshub.backends import (
    MemoryOneTimeKeys,
    NatsOneTimeKeys,
    PostgresOneTimeKeys,
    RedisOneTimeKeys,
    one_time_keys_from_url,
)
from wshub.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.brokers.kinds import Broker, Kind, OwnBroker
    from wshub.backends._stored_one_time_keys import StoredOneTimeKeys

pytestmark = pytest.mark.one_loop

of_each_kind = pytest.mark.parametrize(
    "kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True
)

ORIGIN = "https://chat.example.com"
HOUR = 3600


def make(url: str, **options: Any) -> StoredOneTimeKeys:
    """Return the keys that a URL names."""
    keys = one_time_keys_from_url(url, **options)
    assert isinstance(keys, RedisOneTimeKeys | PostgresOneTimeKeys | NatsOneTimeKeys)
    return keys


@pytest.fixture
async def keys(broker: Broker, prefix: str) -> AsyncGenerator[list[StoredOneTimeKeys]]:
    """The keys of two workers."""
    both = [make(broker.url, prefix=prefix) for _ in range(2)]
    yield both
    for one in both:
        await one.stop()


@pytest.fixture
def own(kind: Kind) -> Generator[OwnBroker, None, None]:
    """A server that was never started, and may be hurt."""
    demand(kind, own=True)
    server = kind.launch()
    yield server
    server.stop()


def handshake() -> HTTPConnection:
    headers = [(b"origin", ORIGIN.encode())]
    return HTTPConnection({"type": "websocket", "path": "/ws", "headers": headers})


@of_each_kind
async def test_two_workers_asked_at_the_same_instant(keys: list[StoredOneTimeKeys]) -> None:
    """One of them takes a ticket and the other refuses it, a thousand times over."""
    workers = [Tickets(one) for one in keys]

    async def ask(worker: Tickets, ticket: str) -> bool:
        try:
            return (await worker.redeem(ticket, handshake())).user == "ana"
        except InvalidCredential:
            return False

    for _ in range(1000):
        ticket = await workers[0].issue(Principal("ana"), handshake())
        assert sum(await asyncio.gather(*(ask(worker, ticket) for worker in workers))) == 1


@of_each_kind
async def test_a_key_is_taken_once(keys: list[StoredOneTimeKeys]) -> None:
    """By any worker; a value that is there is never overwritten, and one that was taken is gone."""
    one, two = keys
    await one.put("a", "é", 60)
    with pytest.raises(ValueError, match="there already"):
        await two.put("a", "other", 60)
    assert await two.take("a") == "é"
    assert await one.take("a") is None
    assert await two.take("a") is None
    assert await two.take("never") is None
    assert "prefix='t" in repr(one)


@of_each_kind
async def test_a_key_has_its_time(keys: list[StoredOneTimeKeys]) -> None:
    """After it there is nothing to take."""
    one, two = keys
    await one.put("short", "x", 0.05)
    await one.put("long", "x", HOUR)
    ends = time.monotonic() + 0.1
    await until(lambda: time.monotonic() > ends)
    assert await two.take("short") is None
    assert await two.take("long") == "x"
    for ttl in (0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="ttl must be positive and at most"):
            await one.put("c", "x", ttl)


@of_each_kind
async def test_names_that_mean_something_to_a_server(keys: list[StoredOneTimeKeys]) -> None:
    """They are keys as any other."""
    one, two = keys
    names = ["a.b", "*", ">", "a b", "a:b", "'", "%2E", "ä"]
    for name in names:
        await one.put(name, name, 60)
    for name in names:
        assert await two.take(name) == name


@of_each_kind
async def test_prefixes_keep_apps_apart(broker: Broker, keys: list[StoredOneTimeKeys]) -> None:
    """The same key in another app is another key."""
    other = make(broker.url, prefix="elsewhere")
    await keys[0].put("a", "1", 60)
    assert await other.take("a") is None
    assert await keys[1].take("a") == "1"
    await other.stop()


@of_each_kind
async def test_an_outage(own: OwnBroker, prefix: str) -> None:
    """While a server is away nothing is kept or taken; it is found again, without being told."""
    own.start()
    keys = make(own.url, prefix=prefix, timeout=1)
    try:
        await keys.put("a", "1", 60)
        own.kill()
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="OneTimeKeys"):
                await keys.put("b", "2", 60)
            with pytest.raises(BackendUnavailable):
                await keys.take("a")
        own.start()
        await keys.put("b", "2", 60)
        own.kill()
        own.start()
        await keys.put("c", "3", 60)  # its connection went meanwhile
        assert await keys.take("c") == "3"
    finally:
        await keys.stop()


@of_each_kind
async def test_a_server_that_stands_still(own: OwnBroker, prefix: str) -> None:
    """Everybody waits for it together, `timeout` seconds; and nobody gets another's answer."""
    own.start()
    keys = make(own.url, prefix=prefix, timeout=1)
    try:
        await keys.put("a", "1", 60)
        own.pause()
        waiting = asyncio.create_task(keys.take("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        began = time.monotonic()
        answers = await asyncio.gather(*(keys.take("a") for _ in range(5)), return_exceptions=True)
        assert time.monotonic() - began < 3
        assert all(isinstance(answer, BackendUnavailable) for answer in answers)
        own.resume()
        await keys.put("b", "2", 60)
        assert await keys.take("never") is None
        assert await keys.take("b") == "2"
    finally:
        own.resume()
        await keys.stop()


@of_each_kind
async def test_a_server_that_refuses(kind: Kind, broker: Broker, prefix: str) -> None:
    """It is away for whoever wants a ticket; what the error says has no password in it."""
    for refuse in kind.refusals[:1]:
        keys = make(refuse(broker.url), prefix=prefix)
        with pytest.raises(BackendUnavailable) as refused:
            await keys.put("a", "1", 60)
        assert "s3cret" not in str(refused.value) + repr(keys)
        await keys.stop()


async def test_the_memory_of_one_process() -> None:
    """It has a URL, too."""
    assert isinstance(one_time_keys_from_url("memory://"), MemoryOneTimeKeys)


@pytest.mark.parametrize("url", ["redis://localhost", "postgres://localhost", "nats://localhost"])
@pytest.mark.parametrize(
    ("options", "text"),
    [({"prefix": "a:b"}, "prefix must be"), ({"timeout": 0}, "timeout must be")],
)
def test_what_are_no_keys(url: str, options: dict[str, Any], text: str) -> None:
    """Mistakes are told when they are made."""
    with pytest.raises(ValueError, match=text):
        make(url, **options)


@pytest.mark.parametrize("kind", [POSTGRES], ids=["postgres"], scope="session", indirect=True)
async def test_rows_that_have_expired_are_deleted(
    own: OwnBroker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever keeps the next; and until then they are in nobody's way."""
    own.start()
    keys = make(own.url, prefix=prefix)
    try:
        for number in range(10):
            await keys.put(f"{number}", "x", 0.001)
        await keys.put("0", "again", 60)
        assert rows(own, prefix) == 10
        monkeypatch.setattr("wshub.backends._postgres_table.CLEAN_INTERVAL", 0.0)
        await keys.stop()
        await keys.put("other", "x", 60)
        assert rows(own, prefix) == 2
        assert await keys.take("0") == "again"
    finally:
        await keys.stop()


def rows(server: OwnBroker, prefix: str) -> int:
    """Return how many keys are kept."""
    return int(server.ask(f'SELECT count(*) FROM "{prefix}_once"')[0][0])  # type: ignore[attr-defined]  # noqa: S608


@pytest.mark.parametrize("kind", [NATS], ids=["nats"], scope="session", indirect=True)
async def test_a_stream_that_is_deleted(broker: Broker, prefix: str) -> None:
    """It is made again; what was in it is gone."""
    keys = make(broker.url, prefix=prefix)
    with connected(broker.url) as admin:
        for key in ("a", "b"):
            await keys.put(key, "1", HOUR)
            admin.ask(f"$JS.API.STREAM.DELETE.{prefix}-once")
            assert await keys.take(key) is None
        admin.ask(f"$JS.API.STREAM.DELETE.{prefix}-once")
        await keys.put("c", "1", HOUR)
        assert await keys.take("c") == "1"
    with pytest.raises(ValueError, match="at most 3600 seconds"):
        await keys.put("d", "1", HOUR + 1)
    await keys.stop()


@pytest.mark.parametrize("kind", [NATS], ids=["nats"], scope="session", indirect=True)
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "does not keep .* delete it, or use another prefix"),
        ({"max_msgs_per_subject": 1, "max_msgs": 1}, "took nothing: maximum messages exceeded"),
    ],
)
async def test_a_stream_of_somebody_else(
    broker: Broker, prefix: str, settings: dict[str, int], text: str
) -> None:
    """If it cannot be used, or is full, the error says so."""
    keys = make(broker.url, prefix=prefix)
    with connected(broker.url) as admin:
        common = {"name": f"{prefix}-once", "subjects": [f"{prefix}.once.*"], "discard": "new"}
        admin.ask(f"$JS.API.STREAM.CREATE.{prefix}-once", common | settings)
    puts = [await asyncio.gather(keys.put(key, "1", HOUR), return_exceptions=True) for key in "ab"]
    assert re.search(text, str(puts[-1][0]))
    assert isinstance(puts[-1][0], BackendUnavailable)
    await keys.stop()


async def test_a_server_without_streams(prefix: str) -> None:
    """Keeps nothing, and the error says what to do."""
    server = NatsServer('listen: "127.0.0.1:{port}"\n')
    server.start()
    keys = make(server.url, prefix=prefix)
    try:
        with pytest.raises(BackendUnavailable, match="start it with -js, or keep one-time keys"):
            await keys.put("a", "1", HOUR)
    finally:
        await keys.stop()
        server.stop()
