"""Keys that are worth something once, for all workers, in Redis or Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._options import PREFIX
from wshub.backends._redis_url import find_servers
from wshub.backends._stored_one_time_keys import TIMEOUT, StoredOneTimeKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wshub.backends._redis_servers import Servers

__all__ = ("RedisOneTimeKeys",)


class RedisOneTimeKeys(StoredOneTimeKeys):
    """
    Keeps one-time keys in Redis 6.2 or newer, or in Valkey, for `Tickets` of all workers.

    A key is taken by one worker, whoever else asks at the same instant. It connects when it is
    first needed, and again after an outage. Needs `pip install 'wshub[redis]'`.

    Args:
        url: As of `RedisBackend`.
        prefix: Begins the name of every key, as `wshub:once:…`.
        timeout: Seconds that the server has for an answer.
        options: Of redis-py's connections, as `ssl_ca_certs`.

    Raises:
        ValueError: The URL or an option cannot be read, or `timeout` is not positive.
        ImportError: redis-py is missing.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        options: Mapping[str, object] | None = None,
    ) -> None:
        servers = find_servers(url, sharded=None, options=options or {})
        super().__init__(_RedisStore(servers, prefix), prefix, timeout)


class _RedisStore:
    def __init__(self, servers: Servers, prefix: str) -> None:
        self._servers = servers
        self._prefix = f"{prefix}:once:"

    async def connect(self) -> None:
        await self._servers.connect()

    async def put(self, key: str, value: bytes, milliseconds: int) -> bool:
        answer = await self._ask(b"SET", key, value, b"NX", b"PX", b"%d" % milliseconds)
        return answer is not None

    async def take(self, key: str) -> bytes | None:
        answer = await self._ask(b"GETDEL", key)
        return answer if isinstance(answer, bytes) else None

    async def close(self) -> None:
        links, self._servers.links = self._servers.links, []
        for link in links:
            link.close()

    async def _ask(self, command: bytes, key: str, *arguments: bytes) -> object:
        name = f"{self._prefix}{key}".encode()
        return await self._servers.link_of(name).ask(command, name, *arguments)
