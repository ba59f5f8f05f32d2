"""Redis Cluster: messages are where their slots are, and workers follow them."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.outcomes import refuses, works
from tests.brokers.redis_groups import RedisCluster, is_well, needs_redis, needs_redis_7, started
from tests.brokers.redis_server import DEBIAN_SERVER, OWN_SERVER, RedisServer
from wshub.backends import RedisBackend
from wshub.backends._redis_servers import slot_of
from wshub.testing import until, wait_until
from wshub.testing._worker import Worker
from wshub.testing.backends import BackendContract

if TYPE_CHECKING:
    from collections.abc import Generator

    from wshub.backends import Backend

pytestmark = needs_redis


@pytest.fixture(scope="module")
def cluster() -> Generator[RedisCluster, None, None]:
    with RedisCluster().running() as running:
        yield running


@needs_redis_7
class TestCluster(BackendContract):
    """A cluster does all that a single server does; messages are sharded."""

    one_order = False  # each node has its own
    max_payload = 50_000

    @pytest.fixture(autouse=True)
    def use(self, cluster: RedisCluster) -> None:
        self.url = cluster.url

    def make(self, prefix: str) -> Backend:
        return RedisBackend(self.url, prefix=prefix, max_payload=self.max_payload)


@needs_redis_7
class TestClusterUnsharded(TestCluster):
    """The pub/sub of older clusters works, too, with the same order for all."""

    def make(self, prefix: str) -> Backend:
        return RedisBackend(self.url, prefix=prefix, sharded=False, max_payload=self.max_payload)


@needs_redis_7
async def test_each_node_of_a_cluster_carries_its_part(cluster: RedisCluster, prefix: str) -> None:
    """A message is published on one node, and nowhere else."""
    async with Worker(RedisBackend(cluster.url, prefix=prefix)).running() as worker:
        rooms = [f"room {number}" for number in range(30)]
        for room in rooms:
            await worker.subscribe("room", room)
        with ExitStack() as stack:
            counts = [stack.enter_context(node.counting(prefix)) for node in cluster.nodes]
            for room in rooms:
                await worker.publish("hi", "room", room)
        assert all(counts)
        assert sum(map(len, counts)) == 30
        assert sum(node.subscriptions(prefix) for node in cluster.nodes) == 31


@needs_redis_7
@pytest.mark.one_loop
async def test_a_node_of_a_cluster_that_dies_and_returns(prefix: str) -> None:
    """Each node is probed: that one third of the rooms is deaf does not go unnoticed."""
    with RedisCluster().running() as cluster:
        async with Worker(RedisBackend(cluster.url, prefix=prefix)).running() as worker:
            for node in (*cluster.nodes, cluster.nodes[0]):
                node.pause()
                await until(lambda: not worker.backend.health().ready, 5)
                node.resume()
                await until(lambda: worker.backend.health().ready)
            cluster.nodes[1].kill()
            await until(lambda: not worker.backend.health().ready, 5)
            cluster.nodes[1].start()
            cluster.agrees()
            await until(lambda: worker.backend.health().ready, 5)
            await worker.publish("hi")
            await worker.reached_by("hi")


@needs_redis_7
@pytest.mark.one_loop
async def test_a_slot_that_moves_to_another_node(prefix: str) -> None:
    """The worker follows: rooms of that slot are where their publishers are."""
    with RedisCluster().running() as cluster:
        async with Worker(RedisBackend(cluster.url, prefix=prefix)).running() as worker:
            await worker.subscribe("room", "tea")
            slot = slot_of(f"{prefix}:room:tea".encode())
            source = cluster.nodes[slot * 3 // 16384]
            target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
            name = target.admin.execute_command("CLUSTER", "MYID")
            for node in (target, *cluster.nodes):
                node.admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)
            await until(lambda: len(worker.events) == 2)
            await until(lambda: worker.backend.health().ready)
            await worker.publish("hi", "room", "tea")
            await worker.reached_by("hi")


@needs_redis_7
@pytest.mark.one_loop
async def test_a_cluster_of_which_no_node_answers(prefix: str) -> None:
    """One that is told of the first node that does is not held up by the others."""
    with RedisCluster().running() as cluster:
        dead = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
        async with Worker(RedisBackend(dead, prefix=prefix)).running() as worker:
            assert worker.backend.health().problem == "no node of the cluster answers"
        url = f"{dead},127.0.0.1:{cluster.nodes[2].port}"
        async with Worker(RedisBackend(url, prefix=prefix)).running() as worker:
            assert worker.backend.health().ready
            for node in cluster.nodes:
                node.admin.execute_command("CLUSTER", "DELSLOTS", 7)
            cluster.nodes[0].cut_connections()
            worker.want("room", next(r for r in map(str, range(10**6)) if lies(prefix, r) == 7))
            problem = "no node of the cluster has slot 7"
            await until(lambda: worker.backend.health().problem == problem)


def lies(prefix: str, room: str) -> int:
    return slot_of(f"{prefix}:room:{room}".encode())


def hears_on_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # pragma: no cover (depends on the machine)
        return False
    return True


@needs_redis_7
@pytest.mark.skipif(not hears_on_ipv6(), reason="this machine has no IPv6")
async def test_a_cluster_with_addresses_of_ipv6(prefix: str) -> None:
    """Its nodes may be told by them, too."""
    node = RedisServer(DEBIAN_SERVER or "", "--cluster-enabled", "yes", "--bind", "::1 127.0.0.1")
    with started(node):
        node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: is_well(node))
        url = f"redis+cluster://[::1]:1,[::1]:{node.port}"
        await works(RedisBackend(url, prefix=prefix))


def test_braces_say_which_part_of_a_name_chooses_the_slot() -> None:
    """As for keys; these slots are those of the specification's examples."""
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")


async def test_a_single_server_is_no_cluster() -> None:
    """It says so."""
    with started(server := RedisServer(OWN_SERVER)):
        backend = RedisBackend(f"redis+cluster://127.0.0.1:{server.port}")
        await refuses(backend, "cluster support disabled")


@pytest.mark.skipif(OWN_SERVER == DEBIAN_SERVER, reason="there is no wheel of Redis 6.2")
async def test_an_old_server_does_not_shard() -> None:
    """Sharded pub/sub came with Redis 7: an older one is refused at once, not deaf."""
    with started(server := RedisServer(OWN_SERVER)):
        await refuses(RedisBackend(server.url, sharded=True), "unknown command")
