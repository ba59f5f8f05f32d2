"""What is too large, broken, foreign or refused: it is told, and hurts nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import Site
from wshub import BackendRefused, PayloadTooLarge
from wshub.testing import until

if TYPE_CHECKING:
    from tests.brokers.kinds import Broker, Kind

ROOM = "room=tea"


async def test_a_message_that_is_too_large(kind: Kind, broker: Broker, prefix: str) -> None:
    """The sender is told the limit; nothing is published, and nobody is disturbed."""
    backend = kind.make(broker.url, prefix=prefix, max_payload=1000)
    async with Site(backend).running() as site, site.connect(ROOM) as client:
        await site.has(1)
        with pytest.raises(PayloadTooLarge, match=r"of 10\d\d bytes .* limit of 1000 bytes"):
            await site.manager.broadcast("x" * 1000, room="tea")
        assert site.manager.statistics().published == 0
        await site.manager.broadcast("x" * 900, room="tea")
        assert await client.receive() == "x" * 900
        assert site.outages == []


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\x00 not ours", "malformed"),
        (b"", "malformed"),
        (b'{"v":1,"audience":"room","name":"tea","binary":[]}\nhi', "malformed"),
        (b'{"v":99,"audience":"room","name":"tea"}\nhi', "unknown"),
        (b'{"v":1,"kind":"telepathy"}\n', "unknown"),
    ],
)
async def test_foreign_traffic_on_our_channels(
    kind: Kind,
    broker: Broker,
    prefix: str,
    payload: bytes,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is counted, logged once, and skipped; what follows it arrives."""
    async with (
        Site(kind.make(broker.url, prefix=prefix)).running() as site,
        site.connect(ROOM) as client,
    ):
        await site.has(1)
        with caplog.at_level(logging.WARNING, "wshub"):
            for _ in range(3):
                broker.publish(prefix, "room", "tea", payload)
            await site.manager.broadcast("ours", room="tea")
            assert await client.receive() == "ours"
        skipped = {"malformed": 0, "unknown": 0, reason: 3}
        await until(lambda: site.manager.statistics().skipped == skipped)
        assert [record.getMessage() for record in caplog.records if record.name == "wshub"] == [
            f"skipped what came from {site.manager.health().backend}: {reason}"
        ]
        assert site.outages == []


async def test_probes_of_others_are_no_sign_of_life(
    kind: Kind, broker: Broker, prefix: str
) -> None:
    """And do no harm."""
    async with Site(kind.make(broker.url, prefix=prefix)).running() as site:
        broker.publish(prefix, "everyone", "", b'{"v":1,"kind":"probe","id":"mine"}\n')
        async with site.connect() as client:
            await site.has(1)
            await site.manager.broadcast("hi")
            assert await client.receive() == "hi"
        assert site.manager.statistics().skipped == {"malformed": 0, "unknown": 0}


async def test_a_server_that_speaks_something_else(
    kind: Kind, broker: Broker, unused_tcp_port: int
) -> None:
    """The app does not start, and says why, without a traceback of a driver's parser."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", unused_tcp_port):
        url = kind.at(broker.url, unused_tcp_port)
        site = Site(kind.make(url))
        with pytest.raises(BackendRefused, match="cannot start: what answers there is not"):
            async with site.manager.lifespan():
                pytest.fail("it started")  # pragma: no cover


@pytest.mark.one_loop
@pytest.mark.parametrize("crowd", [0, 4], ids=["once connected to", "and takes no connection"])
async def test_a_server_that_says_nothing(kind: Kind, broker: Broker, crowd: int) -> None:
    """The app starts, and is not ready."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(crowd):  # who waits to be accepted leaves no place: packets are dropped
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003  (socket's own)
            waiting.connect_ex(silent.getsockname())
        url = kind.at(broker.url, silent.getsockname()[1])
        began = time.monotonic()
        async with Site(kind.make(url)).running() as site:
            assert 1 < time.monotonic() - began < 4
            assert site.manager.health().problem == "the server does not answer"


async def test_a_server_that_refuses(
    kind: Kind, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong password, wrong database: the app does not start, and no secret is in what it says."""
    caplog.set_level(logging.DEBUG)
    for refusal in kind.refusals:
        site = Site(kind.make(refusal(broker.url)))
        with pytest.raises(BackendRefused, match="cannot start: it refuses ") as error:
            async with site.manager.lifespan():
                pytest.fail("it started")  # pragma: no cover
        for text in (str(error.value), repr(error.value), repr(site.backend), caplog.text):
            assert "s3cret" not in text
        assert not site.manager.health().ready
        assert site.outages == []
