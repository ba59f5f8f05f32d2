"""What is particular to Redis: its URLs, clusters, sentinels, TLS, users, and redis-py."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from redis._parsers import _AsyncRESP2Parser

from tests.brokers.kinds import KINDS
from tests.brokers.redis_server import DEBIAN_SERVER, OWN_SERVER, RedisServer
from tests.ports import free_port
from wshub import BackendRefused, BackendUnavailable
from wshub.backends import RedisBackend, RedisOneTimeKeys, _redis_servers, _supervisor
from wshub.backends._broker import BrokerRefused, NothingSent
from wshub.backends._redis_broker import RedisBroker
from wshub.backends._redis_replies import CONGESTED, Replies
from wshub.backends._redis_servers import Sentinels, slot_of
from wshub.backends._redis_url import find_servers
from wshub.testing import until, wait_until
from wshub.testing._worker import Worker
from wshub.testing.backends import BackendContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from wshub.backends import Backend
    from wshub.messages import Envelope

SHARDED = KINDS[1]

pytestmark = pytest.mark.skipif(KINDS[0].missing is not None, reason=str(KINDS[0].missing))
needs_redis_7 = pytest.mark.skipif(SHARDED.missing is not None, reason=str(SHARDED.missing))


@contextmanager
def started(*servers: RedisServer) -> Generator[None, None, None]:
    """Run servers for the length of a block."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


# --- clusters


class RedisCluster:
    """
    Three masters, each with a third of the slots.

    Attributes:
        nodes: The servers.
        url: That of a backend.
    """

    def __init__(self) -> None:
        program = DEBIAN_SERVER or OWN_SERVER
        self.nodes = [
            RedisServer(
                program,
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
                *("--cluster-require-full-coverage", "no"),
            )
            for _ in range(3)
        ]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @contextmanager
    def running(self) -> Generator[RedisCluster, None, None]:
        with started(*self.nodes):
            bounds = [0, 5461, 10923, 16384]
            for number, node in enumerate(self.nodes):
                first, end = bounds[number : number + 2]
                node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
                meet = ("127.0.0.1", node.port, node.port + 10000)
                self.nodes[0].admin.execute_command("CLUSTER", "MEET", *meet)
            self.agrees()
            yield self

    def agrees(self) -> None:
        """Wait until all nodes know each other, and all slots."""
        wait_until(lambda: all(map(_is_well, self.nodes)), 20)


def _is_well(node: RedisServer) -> bool:
    info = node.admin.execute_command("CLUSTER INFO")
    found: bool = info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384"
    return found


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
        wait_until(lambda: _is_well(node))
        url = f"redis+cluster://[::1]:1,[::1]:{node.port}"
        async with Worker(RedisBackend(url, prefix=prefix)).running() as worker:
            await worker.publish("hi")
            await worker.reached_by("hi")


def test_sentinels_with_addresses_of_ipv6() -> None:
    """With brackets in a URL, and without elsewhere."""
    url = "redis+sentinel://[::1]:7000,[2001:db8::1]/my-service"
    servers = find_servers(url, sharded=None, options={})
    assert isinstance(servers, Sentinels)
    assert list(servers._sentinels) == [("::1", 7000), ("2001:db8::1", 26379)]


def lies(prefix: str, room: str) -> int:
    return slot_of(f"{prefix}:room:{room}".encode())


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


# --- sentinels


class Sentinel(RedisServer):
    """One sentinel, which watches over a master."""

    def __init__(self, master: RedisServer, directory: Path) -> None:
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor my-service 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds my-service 500\n"
            "sentinel failover-timeout my-service 3000\n"
        )
        super().__init__(OWN_SERVER)
        program, *options = self._command
        del options[options.index("--save") : options.index("--save") + 2]
        self._command = [program, str(configuration), "--sentinel", *options]


@pytest.mark.one_loop
async def test_the_master_is_asked_of_sentinels_again_after_a_failover(
    prefix: str, tmp_path: Path
) -> None:
    """A replica takes over, and workers are with it as soon as the sentinels are."""
    master = RedisServer(OWN_SERVER)
    replica = RedisServer(OWN_SERVER, "--replicaof", "127.0.0.1", str(master.port))
    sentinel = Sentinel(master, tmp_path)
    with started(master, replica, sentinel):
        wait_until(lambda: _replicas(sentinel) == 1, 20)
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/my-service"
        one, two = (Worker(RedisBackend(url, prefix=prefix)) for _ in range(2))
        async with one.running(), two.running():
            assert one.backend.health().ready
            assert two.backend.health().ready
            master.kill()
            await until(lambda: not one.backend.health().ready)
            await asyncio.to_thread(wait_until, lambda: _master(sentinel) == replica.port, 20)
            await until(lambda: one.backend.health().ready, 5)
            await until(lambda: two.backend.health().ready, 5)
            await one.publish("hi")
            await one.reached_by("hi")
            await two.reached_by("hi")


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
        wait_until(lambda: _is_well(node))
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


def _replicas(sentinel: RedisServer) -> int:
    return len(sentinel.admin.execute_command("SENTINEL", "REPLICAS", "my-service"))


def _master(sentinel: RedisServer) -> int:
    command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "my-service")
    return int(sentinel.admin.execute_command(*command)[1])


# --- TLS and users


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certified(authority: trustme.CA, tmp_path: Path) -> tuple[str, ...]:
    """Options of a server that takes TLS only."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = str(tmp_path / "server.pem")
    files = ("--tls-cert-file", server, "--tls-key-file", server)
    return (*files, "--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no")


@needs_redis_7
async def test_tls(certified: tuple[str, ...], prefix: str, tmp_path: Path) -> None:
    """Certificates are checked: with one that is not trusted it does not start."""
    port = free_port()
    with started(RedisServer(str(DEBIAN_SERVER), "--tls-port", str(port), *certified)):
        url = f"rediss://127.0.0.1:{port}/0"
        trusted = str(tmp_path / "ca.pem")
        for backend in (
            RedisBackend(url, prefix=prefix, options={"ssl_ca_certs": trusted}),
            RedisBackend(f"{url}?ssl_ca_certs={trusted}", prefix=prefix),
        ):
            async with Worker(backend).running() as worker:
                assert backend.health().ready
                await worker.publish("secret")
                await worker.reached_by("secret")
        await refuses(RedisBackend(url), "certificate is not trusted")


async def refuses(backend: Backend, problem: str) -> None:
    """Check that a backend does not start, and why."""
    with pytest.raises(BackendRefused, match=problem):
        async with Worker(backend).running():
            pytest.fail("it started")  # pragma: no cover


async def test_users_and_passwords(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """With any characters in them; without a right to our channels it does not start."""
    caplog.set_level("DEBUG")
    with started(server := RedisServer(OWN_SERVER)):
        for user, password, rules in (
            ("ann", "s3cret", ("&*", "+@all")),
            ("bob", "s3cret@:/?#%", (f"&{prefix}:*", "+@pubsub", "+@connection")),
            ("eve", "s3cret", ("&others:*", "+@pubsub", "+@connection")),
            ("mum", "s3cret", ("&*", "+@pubsub", "-publish", "+@connection")),
        ):
            create = ("ACL", "SETUSER", user, "on", "resetchannels", f">{password}")
            server.admin.execute_command(*create, *rules)
        server.admin.execute_command("ACL", "SETUSER", "default", ">s3cret")
        address = f"127.0.0.1:{server.port}"
        for login in ("ann:s3cret", "bob:s3cret%40%3A%2F%3F%23%25", ":s3cret"):
            backend = RedisBackend(f"redis://{login}@{address}/0", prefix=prefix)
            async with Worker(backend).running() as worker:
                assert backend.health().ready
                await worker.publish(login)
                await worker.reached_by(login)
            assert "s3cret" not in repr(backend)
        backend = RedisBackend(f"redis://eve:s3cret@{address}/0", prefix=prefix)
        await refuses(backend, "may not use pub/sub on these channels")
        backend = RedisBackend(f"redis://mum:s3cret@{address}/0", prefix=prefix)
        await refuses(backend, "it refuses to publish .*NOPERM")
        backend = RedisBackend(f"redis://{address}/0", prefix=prefix)
        await refuses(backend, "refuses the user or the password")
    assert "s3cret" not in caplog.text


@needs_redis_7
async def test_the_rights_that_the_docs_give_are_enough(tmp_path: Path) -> None:
    """On a cluster, and behind sentinels, for one-time keys, too; and none is of no use."""
    page = (Path(__file__).parents[2] / "docs/how-to/workers.md").read_text()
    common = "ACL SETUSER shop on >password resetchannels &shop-staging:* +@pubsub +@connection"
    for_keys = "~shop-staging:once:* +set +getdel"
    node = RedisServer(str(DEBIAN_SERVER), "--cluster-enabled", "yes")
    master = RedisServer(OWN_SERVER)
    sentinel = Sentinel(master, tmp_path)
    cluster = f"redis+cluster://shop:password@127.0.0.1:{node.port}"
    sentinels = f"redis+sentinel://shop:password@127.0.0.1:{sentinel.port}/my-service"
    with started(node, master, sentinel):
        node.admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: _is_well(node))
        for server, url, right in ((node, cluster, "+cluster|slots"), (master, sentinels, "+role")):
            assert all(f"`{rights}`" in page for rights in (common, right, for_keys))
            server.admin.execute_command(*common.split())
            await refuses(RedisBackend(url, prefix="shop-staging"), "no permissions to run")
            server.admin.execute_command("ACL", "SETUSER", "shop", right)
            async with Worker(RedisBackend(url, prefix="shop-staging")).running() as worker:
                await worker.publish("hi")
                await worker.reached_by("hi")
            keys = RedisOneTimeKeys(url, prefix="shop-staging")
            with pytest.raises(BackendUnavailable):
                await keys.put("key", "value", 60)
            server.admin.execute_command("ACL", "SETUSER", "shop", *for_keys.split())
            await keys.put("key", "value", 60)
            assert await keys.take("key") == "value"
            await keys.stop()


# --- redis-py


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


@asynccontextmanager
async def replying(
    *chunks: bytes,
) -> AsyncGenerator[tuple[Replies, list[Exception]], None]:
    """Connect to somebody who answers the first bytes with some of its own, one after the other."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"!")
        for chunk in chunks:
            writer.write(chunk)
            await asyncio.sleep(0.01)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        loop, lost = asyncio.get_running_loop(), list[Exception]()
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        yield Replies(transport, lost.append), lost
        transport.abort()
        await until(lambda: lost)


async def test_answers_in_pieces_settle_what_they_answer() -> None:
    """A batch with the last of its answers, in order; what is not answered fails with the end."""
    async with replying(b":1\r\n:", b"0\r\n:27\r", b"\n:1\r\n") as (replies, lost):
        one, cancelled, three, four = (replies.send(b"", number) for number in (1, 1, 2, 1))
        replies.send(b"!", 1)
        cancelled.cancel()
        await asyncio.wait_for(three, 5)
        assert one.done()
        with pytest.raises(ConnectionError, match="Redis has closed the connection"):
            await four
        with pytest.raises(NothingSent, match="Redis has closed the connection"):
            replies.send(b"late", 1)
        assert len(lost) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"-NOPERM no permissions\r\n", BrokerRefused),
        (b"-LOADING the dataset\r\n", ConnectionError),
        (b"+OK\r\n", ConnectionError),
        (b":1\r\n:1\r\n", ConnectionError),
    ],
)
async def test_answers_that_are_none_end_the_connection(
    answer: bytes, error: type[Exception]
) -> None:
    """Nobody knows any more which command the next one answers."""
    async with replying(answer) as (replies, lost):
        taken = replies.send(b"!", 1)
        await until(lambda: lost)
        assert type(lost[0]) is error
        assert taken.exception() in {None, lost[0]}


class Wire(asyncio.Transport):
    """Notes what is written to it, one system call each."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.written.append(b"the end")


async def test_what_is_published_in_one_turn_leaves_together() -> None:
    """But the first at once, if nothing is on its way: it need not wait for others."""
    wire = Wire()
    replies = Replies(wire, lambda _: None)
    for command in (b"a", b"b", b"c"):
        replies.send(command, 1)
    assert wire.written == [b"a"]
    await asyncio.sleep(0)
    assert wire.written == [b"a", b"bc"]
    replies.data_received(b":1\r\n" * 3)
    replies.send(b"d", 1)
    assert wire.written == [b"a", b"bc", b"d"]


async def test_what_is_about_to_leave_counts_as_what_the_server_does_not_take() -> None:
    """A burst in one turn is bounded, too."""
    replies = Replies(Wire(), lambda _: None)
    replies.send(b"a", 1)
    assert not replies.is_congested
    replies.send(b"b" * CONGESTED, 1)
    assert replies.is_congested
    await asyncio.sleep(0)
    assert not replies.is_congested


async def test_nothing_is_written_to_a_connection_that_has_failed() -> None:
    """What was about to leave fails with it."""
    wire = Wire()
    replies = Replies(wire, lambda _: None)
    sent = [replies.send(command, 1) for command in (b"a", b"b")]
    replies.data_received(b"-LOADING\r\n")
    await asyncio.sleep(0)
    assert wire.written == [b"a", b"the end"]
    assert all(isinstance(one.exception(), ConnectionError) for one in sent)


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


class DyingLink:
    """To a node that dies at the same moment as all others."""

    def check(self) -> None:
        """It lives still."""

    def publish(self, _: object) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()
        loop.call_soon(taken.set_exception, ConnectionError("gone"))
        return taken

    async def receive(self) -> bytes:
        raise ConnectionError("gone")

    def close(self) -> None:
        """It is dead."""


async def test_nodes_that_die_together() -> None:
    """Are one loss, of which nothing is left unread."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    links: Any = {b"one": DyingLink(), b"two": DyingLink(), b"three": DyingLink()}
    servers: Any = SimpleNamespace(links=list(links.values()), link_of=links.__getitem__)
    broker = RedisBroker(servers, {})
    with suppress(ConnectionError):
        await broker.publish([(name.decode(), b"hi") for name in links])
    with suppress(ConnectionError):
        await broker.receive()
    await broker.close()
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "this is no URL of Redis; use redis://"),
        ("user:s3cret@localhost:6379", "this is no URL of Redis"),
        ("http://user:s3cret@localhost", "this is no URL of Redis"),
        ("redis+ring://user:s3cret@localhost", "this is no URL of Redis"),
        ("redis://user:s3cret@a:b/0", "a host and port of this URL cannot be read"),
        ("redis://user:s3cret@one:1,two:2/0", "more than one host needs another form"),
        ("redis+sentinel://user:s3cret@localhost", "needs the name of the service"),
        ("redis://user:s3cret@localhost/0?colour=blue", "redis-py does not know an option"),
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
