"""What an editor infers of a publisher. Read by type checkers, never run."""

from __future__ import annotations

from typing import assert_type

from wshub.backends import NatsBackend, RedisBackend, backend_from_url
from wshub.publisher import Publisher, SyncPublisher


async def publish() -> None:
    async with Publisher(NatsBackend("nats://localhost", ordered=False)) as publisher:
        assert_type(publisher, Publisher)
        assert_type(await publisher.broadcast({"a": 1}, room="tea", exclude=["id"]), None)
        await publisher.send_to_user("ann", b"hi")
        await publisher.disconnect_user("ann", code=4001, reason="bye")
        await publisher.broadcast("hi", exclude=[publisher])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
        publisher.broadcast("not awaited")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def publish_blocking() -> None:
    assert_type(Publisher(backend_from_url("redis://localhost")).sync, SyncPublisher)
    with Publisher(RedisBackend(), timeout=5).sync as publisher:
        assert_type(publisher, SyncPublisher)
        publisher.broadcast([1, 2], room="tea")
        publisher.send_to_user("ann", "hi")
        publisher.disconnect_user("ann")
