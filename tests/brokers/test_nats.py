"""What is particular to NATS: its servers, limits and complaints, and its URLs."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.nats_groups import JETSTREAM, needs_nats, running
from tests.brokers.nats_server import NatsServer, connected
from tests.brokers.outcomes import works
from tests.brokers.proxy import Proxy
from tests.ports import free_port
from wshub import BackendLost, PayloadTooLarge
from wshub.backends import NatsBackend, Receiver, _supervisor
from wshub.backends._nats_url import read_url
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.brokers.kinds import Broker

pytestmark = needs_nats


async def test_the_first_server_that_answers_is_used(nats: Broker, prefix: str) -> None:
    """Some may be away, or say nothing."""
    host = nats.url.removeprefix("nats://")
    silent = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with silent:
        other = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        for hosts in (f"127.0.0.1:{free_port()},{host}", f"{other},{host}", f"{host},{other}"):
            await works(NatsBackend(f"nats://{hosts}", prefix=prefix))


@pytest.mark.one_loop
async def test_a_server_that_says_nothing_is_left_for_the_next(
    nats: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next attempt: the one that is tried has all the time there is."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},{nats.url.removeprefix('nats://')}"
        async with Worker(NatsBackend(f"nats://{hosts}", prefix=prefix)).running() as worker:
            await until(lambda: worker.backend.health().ready)
            await worker.publish("hi")
            await worker.reached_by("hi")


class SlowProxy(Proxy):
    """Takes a while to pass a connection on."""

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await super()._connect(reader, writer)


@pytest.mark.one_loop
async def test_a_slow_server_has_its_time_however_many_there_are(nats: Broker, prefix: str) -> None:
    """Also if it is the only one of them that is there."""
    port = int(nats.url.rpartition(":")[2])
    async with SlowProxy(port).running() as proxy:
        hosts = [*(f"127.0.0.1:{free_port()}" for _ in range(5)), f"127.0.0.1:{proxy.port}"]
        await works(NatsBackend(f"nats://{','.join(hosts)}", prefix=prefix))


async def test_a_server_that_takes_less_than_we_would(prefix: str) -> None:
    """Its own limit is told; a message right below it arrives."""
    with running(server := NatsServer(JETSTREAM + "max_payload: 5000\n")):
        backend = NatsBackend(server.url, prefix=prefix)
        async with Worker(backend).running() as worker:
            with pytest.raises(PayloadTooLarge) as too_large:
                await worker.publish("x" * 5000)
            assert too_large.value.limit == 5000
            envelope = too_large.value.size - 5000
            await worker.publish("y" * (5000 - envelope))
            await worker.reached_by("y" * (5000 - envelope))
            assert worker.events == []


async def test_the_longest_message_of_all(nats: Broker, prefix: str) -> None:
    """What the stream adds to it does no harm."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with pytest.raises(PayloadTooLarge) as too_large:
            await worker.publish("x" * 1024 * 1024)
        longest = "y" * (2 * 1024 * 1024 - too_large.value.size)
        await worker.publish(longest)
        await worker.reached_by(longest)


async def test_a_worker_that_is_slow_lets_the_server_wait(nats: Broker, prefix: str) -> None:
    """No more than some messages are read ahead, and none is lost."""
    sender = Worker(NatsBackend(nats.url, prefix=prefix))
    slow = Worker(NatsBackend(nats.url, prefix=prefix))
    async with sender.running(), slow.running():
        texts = [f"{number} {'x' * 1000}" for number in range(1000)]
        await asyncio.gather(*map(sender.publish, texts))
        await slow.reached_by(*texts)
        assert slow.events == sender.events == []


async def test_what_a_worker_does_not_take_stays_on_the_server(nats: Broker, prefix: str) -> None:
    """It waits there, and in the socket: memory here is bounded."""
    backend = NatsBackend(nats.url, prefix=prefix)
    go_on = asyncio.Event()
    taken: list[object] = []

    async def take(envelope: object) -> None:
        await go_on.wait()
        taken.append(envelope)

    backend.attach(Receiver(take, lambda _: None, lambda _: None))
    backend.subscribe("everyone", "")
    await backend.start()
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as sender:
        for number in range(20):
            await sender.publish(f"{number} {'x' * 200_000}")
        await sender.is_delivered(20)
        waiting = backend._nats._link._payloads
        await until(lambda: sum(map(len, waiting)) > 1024 * 1024)
        assert sum(map(len, waiting)) < 1024 * 1024 + 300_000
        go_on.set()
        await until(lambda: len(taken) == 20)
    await backend.stop()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"-ERR 'Slow Consumer'\r\n", "slow consumer"),
        (b"-ERR \r\n", "the connection to NATS is closed"),  # on which nats-py's reader stumbles
        (b"HELP ME\r\n", "protocol error"),
    ],
)
async def test_a_server_that_complains_is_lost(
    said: bytes, problem: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says, the worker does not go on deaf."""

    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                writer.write(said)
        writer.close()

    async with await asyncio.start_server(complain, "127.0.0.1", unused_tcp_port):
        backend = NatsBackend(f"nats://127.0.0.1:{unused_tcp_port}", ordered=False)
        async with Worker(backend).running() as worker:
            await until(lambda: worker.events)
            assert problem in str(backend.health().problem)
            assert isinstance(worker.events[0], BackendLost)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        ("nats:/s3cret", {}, "this is no URL of NATS"),
        ("redis://s3cret@host", {}, "this is no URL of NATS"),
        ("nats://s3cret@host:port", {}, "a host and port of this URL cannot be read"),
        ("nats://host:0", {}, "a port cannot be read; it is a number from 1 to 65535"),
        ("nats://s3cret@host,other:99999", {}, "a port cannot be read"),
        ("nats://host?ordered=s3crets", {}, "ordered is true or false"),
        ("nats://host?allow_reconnect=true", {}, "does not know the option 'allow_reconnect'"),
        ("nats://s3cret@host?inbox_prefix=a%20b", {}, "inbox_prefix is a subject"),
        ("nats://host", {"inbox_prefix": "a..b"}, "inbox_prefix is a subject"),
        ("nats://host", {"speed": 9}, "does not know the option 'speed'"),
        ("nats://host?ssl_ca_certs=/no/where", {}, "a certificate or its key cannot be read"),
        ("nats://host", {"ssl_certfile": "/no/where"}, "a certificate or its key cannot be read"),
    ],
)
def test_a_url_that_makes_no_sense(url: str, options: dict[str, Any], problem: str) -> None:
    """Is a ValueError that says so, and does not repeat what may be secret."""
    with pytest.raises(ValueError, match=problem) as error:
        NatsBackend(url, options=options)
    assert "s3cret@" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "servers", "login"),
    [
        ("nats://", ["nats://localhost:4222"], {}),
        ("nats://host", ["nats://host:4222"], {}),
        ("NATS://[::1]:42,b,c:7/", ["nats://[::1]:42", "nats://b:4222", "nats://c:7"], {}),
        ("nats://t%40ken@host", ["nats://host:4222"], {"token": "t@ken"}),
        ("nats://u:p%3A@host", ["nats://host:4222"], {"user": "u", "password": "p:"}),
    ],
)
def test_what_a_url_says(url: str, servers: Sequence[str], login: dict[str, str]) -> None:
    """Hosts have a port of their own, or NATS' usual one; secrets are no part of them."""
    settings = read_url(url, {})
    assert settings.servers == servers
    assert settings.options == {"name": "wshub", **login}
    assert not settings.encrypted
    assert not any(secret in repr(settings) for secret in login.values())


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has a name."""
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    for name in ("_nats_link", "_nats_connection"):
        monkeypatch.delitem(sys.modules, f"wshub.backends.{name}", raising=False)
    with pytest.raises(ImportError, match=r"NatsBackend needs nats; pip install 'wshub\[nats\]'"):
        NatsBackend()


async def test_rooms_can_be_read_on_the_server(nats: Broker, prefix: str) -> None:
    """An administrator may grant a right to a room, and see who has subscribed to it."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        await worker.subscribe("room", "lobby")
        await worker.subscribe("user", "ann.lee@example.org")
        with connected(nats.url) as client:
            answer = client.ask("$SYS.REQ.ACCOUNT.PING.CONNZ", {"subscriptions": True})
    subjects = {
        subject
        for connection in answer["data"]["connections"]
        for subject in connection.get("subscriptions_list", ())
        if subject.startswith(f"{prefix}.") and ".worker." not in subject
    }
    assert subjects == {
        f"{prefix}.deliver.everyone",
        f"{prefix}.deliver.room.lobby",
        f"{prefix}.deliver.user.ann%2Elee%40example%2Eorg",
    }
