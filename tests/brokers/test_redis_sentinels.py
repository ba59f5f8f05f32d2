"""Redis Sentinel: the master is asked for, again and again."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from tests.brokers.redis_groups import Sentinel, is_well, needs_redis, started
from tests.brokers.redis_server import DEBIAN_SERVER, OWN_SERVER, RedisServer
from wshub.backends import RedisBackend, _redis_servers, _supervisor
from wshub.backends._redis_servers import Sentinels
from wshub.backends._redis_url import find_servers
from wshub.testing import until, wait_until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_redis


@pytest.mark.one_loop
async def test_the_master_is_asked_of_sentinels_again_after_a_failover(
    prefix: str, tmp_path: Path
) -> None:
    """A replica takes over, and workers are with it as soon as the sentinels are."""
    master = RedisServer(OWN_SERVER)
    replica = RedisServer(OWN_SERVER, "--replicaof", "127.0.0.1", str(master.port))
    sentinel = Sentinel(master, tmp_path)
    with started(master, replica, sentinel):
        wait_until(lambda: replicas_of(sentinel) == 1, 20)
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/my-service"
        one, two = (Worker(RedisBackend(url, prefix=prefix)) for _ in range(2))
        async with one.running(), two.running():
            assert one.backend.health().ready
            assert two.backend.health().ready
            master.kill()
            await until(lambda: not one.backend.health().ready)
            await asyncio.to_thread(wait_until, lambda: master_of(sentinel) == replica.port, 20)
            await until(lambda: one.backend.health().ready, 5)
            await until(lambda: two.backend.health().ready, 5)
            await one.publish("hi")
            await one.reached_by("hi")
            await two.reached_by("hi")


def replicas_of(sentinel: RedisServer) -> int:
    return len(sentinel.admin.execute_command("SENTINEL", "REPLICAS", "my-service"))


def master_of(sentinel: RedisServer) -> int:
    command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "my-service")
    return int(sentinel.admin.execute_command(*command)[1])


@pytest.mark.one_loop
async def test_sentinels_that_do_not_help(prefix: str, tmp_path: Path) -> None:
    """Unknown services, and masters that are none any more, are outages like others."""
    master = RedisServer(OWN_SERVER)
    sentinel = Sentinel(master, tmp_path)
    with started(master, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}"
        async with Worker(RedisBackend(f"{url}/nobody%20knows", prefix=prefix)).running() as worker:
            problem = worker.backend.health().problem
            assert problem == "no sentinel knows the master of 'nobody knows'"
        master.admin.execute_command("REPLICAOF", "127.0.0.1", 1)
        async with Worker(RedisBackend(f"{url}/my-service/0", prefix=prefix)).running() as worker:
            assert "is not the master yet, or no longer" in str(worker.backend.health().problem)


@pytest.mark.one_loop
async def test_seeds_and_sentinels_that_say_nothing(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: an attempt begins where the last one has lost its patience."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.5)
    monkeypatch.setattr(_redis_servers, "SEED_TIMEOUT", 0.2)
    node = RedisServer(DEBIAN_SERVER or OWN_SERVER, "--cluster-enabled", "yes")
    master = RedisServer(OWN_SERVER)
    sentinel = Sentinel(master, tmp_path)
    with started(node, master, sentinel), socket.create_server(("127.0.0.1", 0)) as silent:
        node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: is_well(node))
        others = 4 * f"127.0.0.1:{silent.getsockname()[1]},"
        for backend in (
            RedisBackend(
                f"redis+cluster://{others}127.0.0.1:{node.port}", prefix=prefix, sharded=False
            ),
            RedisBackend(
                f"redis+sentinel://{others}127.0.0.1:{sentinel.port}/my-service", prefix=prefix
            ),
        ):
            async with Worker(backend).running() as worker:
                await until(lambda worker=worker: worker.backend.health().ready)  # type: ignore[misc]
                await worker.publish("hi")
                await worker.reached_by("hi")


def test_sentinels_with_addresses_of_ipv6() -> None:
    """With brackets in a URL, and without elsewhere."""
    url = "redis+sentinel://[::1]:7000,[2001:db8::1]/my-service"
    servers = find_servers(url, sharded=None, options={})
    assert isinstance(servers, Sentinels)
    assert list(servers._sentinels) == [("::1", 7000), ("2001:db8::1", 26379)]
