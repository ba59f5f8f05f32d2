"""The backend that connects workers through Redis, or Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._options import MAX_PAYLOAD, PREFIX, PUBLISH_TIMEOUT, Options
from wshub.backends._redis_broker import RedisBroker
from wshub.backends._redis_url import explain_refusals, find_servers
from wshub.backends._supervisor import SupervisedBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("RedisBackend",)


class RedisBackend(SupervisedBackend):
    """
    Carries messages between workers through the pub/sub of Redis 6.2 or newer, or of Valkey.

    At most once: what is published while a worker has lost the server does not reach its
    connections, and `BackendRegained` tells for how long that was. All workers see messages in
    the order in which the server took them; on a cluster that holds for each room, each user and
    everyone by itself. Needs `pip install 'wshub[redis]'`.

    Args:
        url: `redis://user:password@host:6379/0`, with TLS `rediss://…`. `redis+cluster://` takes
            some nodes, separated by commas, `redis+sentinel://host:26379,host2:26379/service/0`
            the sentinels and the name of the service; with TLS they begin with `rediss+`.
        prefix: Begins the name of every channel: letters, digits, `_` and `-`. Apps that share a
            server, but not their messages, need different ones; databases do not separate them.
        sharded: Use sharded pub/sub (Redis 7 or newer): on a cluster, a message then goes to one
            node instead of all. By default a cluster does, a single server does not. All workers
            must do the same.
        publish_timeout: Seconds that a publication waits at most for a server that is away.
        max_payload: Bytes of the longest message, with its envelope.
        options: Of redis-py's connections, as `ssl_ca_certs`; they may be in the query of the
            URL, too. Those of `sentinel_…` are for the sentinels, as `sentinel_password`.

    Raises:
        ValueError: The URL or an option cannot be read.
        ImportError: redis-py is missing.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = PREFIX,
        sharded: bool | None = None,
        publish_timeout: float = PUBLISH_TIMEOUT,
        max_payload: int = MAX_PAYLOAD,
        options: Mapping[str, object] | None = None,
    ) -> None:
        servers = find_servers(url, sharded=sharded, options=options or {})
        broker = RedisBroker(servers, explain_refusals())
        super().__init__(broker, Options(prefix, publish_timeout, max_payload))
