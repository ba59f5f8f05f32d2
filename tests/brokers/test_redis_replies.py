"""What is published to a Redis server, and its answers."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from wshub.backends._broker import BrokerRefused, NothingSent
from wshub.backends._redis_broker import RedisBroker
from wshub.backends._redis_replies import CONGESTED, Replies
from wshub.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


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
