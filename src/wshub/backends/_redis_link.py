"""Two connections to one Redis server: one that publishes, one that listens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wshub.backends._redis_replies import Replies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ("Commands", "Connection", "RedisLink", "ask", "drop")


class Connection(Protocol):
    """What is used of redis-py's connections, from its version 5.1 on."""

    _writer: Any

    @property
    def is_connected(self) -> bool:
        """Whether there is a socket."""
        ...

    async def connect(self) -> None:
        """Connect, log in, select the database."""
        ...

    def _close(self) -> None:
        """Close the socket, and forget it."""
        ...

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:  # noqa: FBT001, FBT002  (redis-py's)
        """Write to the socket; connects first, if it has to."""
        ...

    async def read_response(self, disable_decoding: bool = False) -> object:  # noqa: FBT001, FBT002  (redis-py's)
        """Return the next answer; raise it if it is an error."""
        ...


class Commands(NamedTuple):
    """
    One of Redis' two kinds of pub/sub.

    Attributes:
        publish: Its command to publish.
        subscribe: Its command to subscribe, and the first word of the answer in lower case.
        unsubscribe: The same, to end that.
        message: First word of what was published.
        together: Whether a command takes several channels: those of two slots it may not.
    """

    publish: bytes
    subscribe: bytes
    unsubscribe: bytes
    message: bytes
    together: bool


CLASSIC = Commands(b"PUBLISH", b"SUBSCRIBE", b"UNSUBSCRIBE", b"message", together=True)
SHARDED = Commands(b"SPUBLISH", b"SSUBSCRIBE", b"SUNSUBSCRIBE", b"smessage", together=False)


class RedisLink:
    """
    Publishes to and listens on one server.

    A connection that broke is not mended: redis-py would do so behind our back, without the
    subscriptions. Whoever notices raises, and the supervisor begins anew.
    """

    __slots__ = (
        "_acknowledged",
        "_commands",
        "_expected",
        "_failure",
        "_listening",
        "_publishing",
        "_replies",
    )

    def __init__(self, make: Callable[[], Connection], commands: Commands) -> None:
        self._publishing = make()
        self._listening = make()
        self._commands = commands
        self._expected: dict[tuple[bytes, bytes], None] = {}
        self._acknowledged: asyncio.Event
        self._replies: Replies
        self._failure: Exception | None = None

    async def connect(self) -> None:
        """Open both connections, and see that it is Redis which answers."""
        self._acknowledged = asyncio.Event()
        await self._publishing.connect()
        await self.ask(b"PING")
        await self._listening.connect()

    def begin(self) -> None:
        """Publish from now on, and `ask()` no more."""
        transport: asyncio.Transport = self._publishing._writer.transport
        self._replies = Replies(transport, self._lose)

    def close(self) -> None:
        """Drop both connections."""
        drop(self._publishing)
        drop(self._listening)

    async def ask(self, *command: bytes) -> object:
        """Return the answer to a command."""
        return await ask(self._publishing, *command)

    def check(self) -> None:
        """Raise NothingSent if it is known that nothing can be published any more."""
        self._replies.check()

    def publish(self, messages: Sequence[tuple[bytes, bytes]]) -> asyncio.Future[None]:
        """Publish payloads at once; return what is done once the server has taken all."""
        command = self._commands.publish
        packed = [_pack(command, channel, payload) for channel, payload in messages]
        return self._replies.send(b"".join(packed), len(packed))

    def send(self, channel: bytes, payload: bytes) -> asyncio.Future[None]:
        """Publish a payload at once. Raises ConnectionError if the server takes nothing now."""
        if self._replies.is_congested:
            raise ConnectionError("Redis takes less than it is sent")
        return self.publish([(channel, payload)])

    async def subscribe(self, channels: Sequence[bytes]) -> None:
        """Subscribe to channels; `receive()`, which runs meanwhile, sees that it is in effect."""
        await self._change(self._commands.subscribe, channels)

    async def unsubscribe(self, channels: Sequence[bytes]) -> None:
        """End subscriptions."""
        await self._change(self._commands.unsubscribe, channels)

    async def receive(self) -> bytes:
        """Return the next payload."""
        while True:
            try:
                answer = await self._listening.read_response(disable_decoding=True)
            except Exception as error:
                if self._failure is not None:
                    raise self._failure from error
                raise
            match answer:
                case [self._commands.message, bytes(), bytes(payload)]:
                    return payload
                case [bytes(kind), bytes(channel), int()] if (kind, channel) in self._expected:
                    del self._expected[kind, channel]
                    if not self._expected:
                        self._acknowledged.set()
                case _:
                    # Of a cluster that moves a slot: its subscriptions have to be made elsewhere.
                    raise ConnectionError(f"Redis has ended a subscription: {answer!r}")

    def _lose(self, error: Exception) -> None:
        """Let `receive()` fail, too: one connection without the other is of no use."""
        self._failure = error
        drop(self._listening)

    async def _change(self, command: bytes, channels: Sequence[bytes]) -> None:
        kind = command.lower()
        self._expected = dict.fromkeys((kind, channel) for channel in channels)
        self._acknowledged.clear()
        together = self._commands.together
        packed = [_pack(command, *channels)] if together else [_pack(command, c) for c in channels]
        await _send(self._listening, b"".join(packed))
        await self._acknowledged.wait()


async def ask(connection: Connection, *command: bytes) -> object:
    """Return the answer to a command."""
    await _send(connection, _pack(*command))
    return await connection.read_response(disable_decoding=True)


def drop(connection: Connection) -> None:
    """Close `connection` at once: nothing waits for a server that takes nothing any more."""
    writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
    if writer is not None:
        writer.transport.abort()
    connection._close()


async def _send(connection: Connection, data: bytes) -> None:
    if not connection.is_connected:
        raise ConnectionError("the connection to Redis is closed")
    await connection.send_packed_command(data, check_health=False)


def _pack(*arguments: bytes) -> bytes:
    packed = [b"*%d\r\n" % len(arguments)]
    packed += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(packed)
