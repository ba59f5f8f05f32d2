"""What is particular to Redis: redis-py, a connection that breaks, and its URLs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
from redis._parsers import _AsyncRESP2Parser

from tests.brokers.redis_groups import needs_redis, started
from tests.brokers.redis_server import OWN_SERVER, RedisServer
from wshub import BackendUnavailable
from wshub.backends import RedisBackend, _supervisor
from wshub.backends._redis_url import find_servers
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from wshub.messages import Envelope

pytestmark = needs_redis


async def test_it_does_without_hiredis(prefix: str) -> None:
    """redis-py's own parser is slower, and does the same."""
    options = {"parser_class": _AsyncRESP2Parser}
    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(server.url, prefix=prefix, options=options)
        async with Worker(backend).running() as worker:
            await worker.subscribe("room", "tea")
            texts = [f"{number} {'x' * number}" for number in range(0, 3000, 100)]
            await asyncio.gather(*(worker.publish(text, "room", "tea") for text in texts))
            await worker.reached_by(*texts)
            server.kill()
            await until(lambda: not backend.health().ready)
            server.start()
            await until(lambda: backend.health().ready, 5)


@pytest.mark.one_loop
async def test_silence_is_no_outage(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber that hears nothing for longer than redis-py's own timeout stays connected."""
    monkeypatch.setattr(_supervisor, "PROBE_INTERVAL", 60)
    with started(server := RedisServer(OWN_SERVER)):
        async with Worker(RedisBackend(server.url, prefix=prefix)).running() as worker:
            await asyncio.sleep(6)
            await worker.publish("hi")
            await worker.reached_by("hi")
            assert worker.events == []


async def test_a_connection_that_broke_is_not_mended_behind_our_back() -> None:
    """redis-py would connect again, without the subscriptions."""
    with started(server := RedisServer(OWN_SERVER)):
        servers = find_servers(server.url, sharded=False, options={})
        await servers.connect()
        (link,) = servers.links
        link.close()
        with pytest.raises(ConnectionError, match="is closed"):
            await link.subscribe([b"channel"])


async def test_a_right_that_is_taken_away(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes is told, and so is who asks for health; until it is given back."""
    monkeypatch.setattr(_supervisor, "PROBE_INTERVAL", 60)
    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(server.url, prefix=prefix)
        async with Worker(backend).running() as worker:
            server.admin.execute_command("ACL", "SETUSER", "default", "-publish")
            with pytest.raises(BackendUnavailable, match="refuses to publish"):
                await worker.publish("hi")
            await until(lambda: not backend.health().ready)
            assert "refuses to publish" in str(backend.health().problem)
            server.admin.execute_command("ACL", "SETUSER", "default", "+publish")
            await until(lambda: backend.health().ready)
            await worker.publish("hi")
            await worker.reached_by("hi")


async def test_a_server_that_takes_nothing_is_not_sent_more_and_more(prefix: str) -> None:
    """What waits here is bounded: what comes later is not sent at all, and so not uncertain."""
    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(server.url, prefix=prefix, max_payload=2**24, publish_timeout=0.5)
        async with Worker(backend).running() as worker:
            server.pause()
            errors = await asyncio.gather(
                *(worker.publish("x" * 2**23) for _ in range(8)), return_exceptions=True
            )
            certain = [error for error in errors if not getattr(error, "uncertain", True)]
            assert len(certain) > 4
            server.resume()


async def test_a_publication_on_its_way_when_the_server_dies_is_uncertain(prefix: str) -> None:
    """It is not sent again: it would arrive twice, if it had arrived."""
    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(server.url, prefix=prefix, publish_timeout=0.2)
        async with Worker(backend).running() as worker:
            server.pause()
            with pytest.raises(BackendUnavailable) as unavailable:
                await worker.publish("hi")
            assert unavailable.value.uncertain
            server.resume()
            await worker.reached_by("hi")
            server.pause()
            publishing = asyncio.create_task(worker.publish("again"))
            await asyncio.sleep(0.05)
            server.kill()
            with pytest.raises(BackendUnavailable) as unavailable:
                await publishing
            assert unavailable.value.uncertain


async def test_what_is_published_right_after_a_loss_waits(prefix: str) -> None:
    """It has not left, though nobody has looked yet at the connection that listens."""

    class BusyWorker(Worker):
        async def _deliver(self, envelope: Envelope) -> None:
            await super()._deliver(envelope)
            if self.texts == ["one"]:
                await asyncio.get_running_loop().create_future()

    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(server.url, prefix=prefix, publish_timeout=10)
        async with BusyWorker(backend).running() as worker:
            await worker.publish("one")
            await until(lambda: worker.texts)
            broker: Any = backend._broker
            (link,) = broker._servers.links
            server.cut_connections()
            await until(lambda: link._failure)
            async with asyncio.TaskGroup() as tasks:
                for text in ("two", "three"):
                    tasks.create_task(worker.publish(text))
            await worker.reached_by("one", "two", "three")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "this is no URL of Redis; use redis://"),
        ("user:s3cret@localhost:6379", "this is no URL of Redis"),
        ("http://user:s3cret@localhost", "this is no URL of Redis"),
        ("redis+ring://user:s3cret@localhost", "this is no URL of Redis"),
        ("redis://user:s3cret@a:b/0", "a host and port of this URL cannot be read"),
        ("redis://user:s3cret@localhost:0", "a port cannot be read; it is a number from 1 to"),
        ("redis://user:s3cret@localhost:99999/0", "a port cannot be read"),
        ("redis+cluster://user:s3cret@one:1,two:65536", "a port cannot be read"),
        ("redis://user:s3cret@one:1,two:2/0", "more than one host needs another form"),
        ("redis+sentinel://user:s3cret@localhost", "needs the name of the service"),
        ("redis://user:s3cret@localhost/0?colour=blue", "redis-py does not know an option"),
        (
            "redis://user:s3cret@localhost?retry_on_error=x",
            "retry_on_error cannot be part",
        ),
        ("redis://user:s3cret@localhost?encoding=x", "redis-py does not take an option"),
        ("redis://user:s3cret@localhost?socket_read_size=-1", "socket_read_size is a positive"),
        ("redis+sentinel://user:s3cret@localhost/a?sentinel_x=y", "does not know an option"),
        ("rediss://user:s3cret@localhost?ssl_ciphers=x", "an option of TLS cannot be used"),
        ("rediss://user:s3cret@localhost?ssl_cert_reqs=maybe", "redis-py does not take an option"),
        ("rediss://user:s3cret@localhost?ssl_ca_certs=/no/where", "ssl_ca_certs cannot be read"),
    ],
)
def test_urls_that_cannot_be_read(url: str, problem: str) -> None:
    """Are refused when the backend is made, without a word of what is in them."""
    with pytest.raises(ValueError, match=problem) as error:
        RedisBackend(url)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("prefix", ["", "a:b", "a b", "a.b", "ä", "x" * 65])
def test_prefixes_that_could_run_into_each_other(prefix: str) -> None:
    """Letters, digits, `_` and `-` only."""
    with pytest.raises(ValueError, match=r"prefix must be 1 to 64 letters"):
        RedisBackend(prefix=prefix)


@pytest.mark.parametrize("option", [{"publish_timeout": 0}, {"max_payload": 0}])
def test_options_out_of_range(option: dict[str, Any]) -> None:
    """They could not work."""
    with pytest.raises(ValueError, match="must be"):
        RedisBackend(**option)


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(
        ImportError, match=r"RedisBackend needs redis; pip install 'wshub\[redis\]'"
    ):
        RedisBackend()
