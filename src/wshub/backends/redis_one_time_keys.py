"""Keys that are worth something once, for all workers, in Redis or Valkey."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from wshub.backends._deadline import Limit
from wshub.backends._options import PREFIX, Options
from wshub.backends._redis_url import find_servers
from wshub.exceptions import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("RedisOneTimeKeys",)


class RedisOneTimeKeys:
    """
    Keeps one-time keys in Redis 6.2 or newer, or in Valkey, for `Tickets` of all workers.

    A key is taken by one worker, whoever else asks at the same instant: the server sees to that.
    It connects when it is first needed, and again after an outage. Needs
    `pip install 'wshub[redis]'`.

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
        timeout: float = 2.0,
        options: Mapping[str, object] | None = None,
    ) -> None:
        Options(prefix).check()
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        self._prefix = f"{prefix}:once:"
        self._timeout = timeout
        self._servers = find_servers(url, sharded=None, options=options or {})
        self._connected = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<RedisOneTimeKeys {self._prefix!r}>"

    async def put(self, key_hash: str, value: str, ttl: float) -> None:
        """
        Keep `value` under a key that is new, for `ttl` seconds.

        Raises:
            BackendUnavailable: It cannot be kept now.
            ValueError: The key is there already, or `ttl` is not positive.
        """
        if not 0 < ttl < math.inf:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl!r}")
        milliseconds = b"%d" % math.ceil(ttl * 1000)
        answer, again = await self._ask(
            b"SET", key_hash, value.encode(), b"NX", b"PX", milliseconds
        )
        # What is there at the second attempt may be what the first one left.
        if answer is None and not again:
            raise ValueError("this key is there already; keys are random and used once")

    async def take(self, key_hash: str) -> str | None:
        """
        Return what is kept under a key, and keep it no longer; None if there is nothing.

        Raises:
            BackendUnavailable: It cannot be asked now.
        """
        answer, _ = await self._ask(b"GETDEL", key_hash)
        return answer.decode() if isinstance(answer, bytes) else None

    async def stop(self) -> None:
        """Drop the connections; they are made again if they are needed. Idempotent."""
        async with self._turn:
            self._drop()

    async def _ask(self, command: bytes, key_hash: str, *arguments: bytes) -> tuple[object, bool]:
        """Return the server's answer, and whether it was asked for the second time."""
        words = (command, f"{self._prefix}{key_hash}".encode(), *arguments)
        async with self._turn:
            was_connected = self._connected
            try:
                return await self._try(words), False
            except Exception as error:  # drivers raise what they like
                if not was_connected:
                    raise self._unavailable(error) from error
            try:  # the connection may have gone since it was last used
                return await self._try(words), True
            except Exception as error:
                raise self._unavailable(error) from error

    async def _try(self, words: tuple[bytes, ...]) -> object:
        try:
            async with Limit(self._timeout):
                if not self._connected:
                    await self._servers.connect()
                    self._connected = True
                return await self._servers.link_of(words[1]).ask(*words)
        except BaseException:
            self._drop()  # an answer may be under way, and would be taken for that of another
            raise

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(type(self).__name__, repr(error))

    def _drop(self) -> None:
        self._connected = False
        links, self._servers.links = self._servers.links, []
        for link in links:
            link.close()
