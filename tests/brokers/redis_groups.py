"""Redis servers that belong together: a cluster, a master and its sentinel."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.brokers.kinds import REDIS, SHARDED
from tests.brokers.redis_server import DEBIAN_SERVER, OWN_SERVER, RedisServer
from wshub.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

needs_redis = pytest.mark.skipif(REDIS.missing is not None, reason=str(REDIS.missing))
needs_redis_7 = pytest.mark.skipif(SHARDED.missing is not None, reason=str(SHARDED.missing))


@contextmanager
def started(*servers: RedisServer) -> Generator[None, None, None]:
    """Run servers for the length of a block."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


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
        wait_until(lambda: all(map(is_well, self.nodes)), 20)


def is_well(node: RedisServer) -> bool:
    """Whether a node of a cluster sees all slots served."""
    info = node.admin.execute_command("CLUSTER INFO")
    found: bool = info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384"
    return found


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
