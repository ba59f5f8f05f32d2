"""One order for all workers: the stream through which they publish."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.nats_groups import JETSTREAM, PLAIN, needs_nats, running
from tests.brokers.nats_server import NatsServer, connected
from tests.brokers.outcomes import refuses, works
from tests.ports import free_port
from wshub import BackendLost, BackendRegained, BackendUnavailable
from wshub.backends import NatsBackend
from wshub.testing import until
from wshub.testing._worker import Worker

if TYPE_CHECKING:
    from tests.brokers.kinds import Broker

pytestmark = needs_nats


async def test_without_jetstream_it_says_what_to_do(prefix: str) -> None:
    """A plain server passes messages on, but has no order for all; that has to be chosen."""
    with running(server := NatsServer(PLAIN)):
        await refuses(NatsBackend(server.url), "has no JetStream; start it with -js, or .*ordered=")
        await works(NatsBackend(server.url, prefix=prefix, ordered=False))
        await works(NatsBackend(f"{server.url}?ordered=false", prefix=prefix))
        url = f"{server.url}?ordered=false"
        await refuses(NatsBackend(url, prefix=prefix, ordered=True), "has no JetStream")


async def test_an_account_without_jetstream(prefix: str) -> None:
    """JetStream itself says so."""
    accounts = "accounts {{ A {{ users: [{{ user: a, password: b }}] }} }}\nno_auth_user: a\n"
    with running(server := NatsServer(JETSTREAM + accounts)):
        await refuses(NatsBackend(server.url, prefix=prefix), "enable it, or do without one order")


async def test_its_stream_keeps_nothing(nats: Broker, prefix: str) -> None:
    """A message is in memory for a second, then it is gone."""

    def stored() -> Any:
        with connected(nats.url) as client:
            return client.ask(f"$JS.API.STREAM.INFO.{prefix}-order")

    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        for number in range(20):
            await worker.publish(str(number))
        await worker.is_delivered(20)
        assert stored()["config"]["storage"] == "memory"
        assert stored()["state"]["messages"] <= 1
        await worker.backend.stop()
        await until(lambda: stored()["state"]["messages"] == 0)


async def test_a_stream_that_an_administrator_has_made(nats: Broker, prefix: str) -> None:
    """It may differ in what does not matter to us; in what does, it is not touched."""
    settings = {
        "name": f"{prefix}-order",
        "subjects": [f"{prefix}.publish.>"],
        "storage": "file",
        "max_age": 5_000_000_000,
    }
    name = f"{prefix}-order"
    with connected(nats.url) as client:
        assert "error" not in client.ask(f"$JS.API.STREAM.CREATE.{name}", settings)
        await refuses(NatsBackend(nats.url, prefix=prefix), f"its stream {name} does not publish")
        republish = {"src": f"{prefix}.publish.>", "dest": f"{prefix}.deliver.>"}
        changed = {**settings, "republish": republish}
        assert "error" not in client.ask(f"$JS.API.STREAM.UPDATE.{name}", changed)
        await works(NatsBackend(nats.url, prefix=prefix))
        config = client.ask(f"$JS.API.STREAM.INFO.{name}")["config"]
        assert (config["storage"], config["max_age"]) == ("file", 5_000_000_000)


async def test_a_stream_that_is_deleted_is_an_outage(nats: Broker, prefix: str) -> None:
    """Publishing fails, and does not pretend; the stream is made again."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with connected(nats.url) as client:
            assert client.ask(f"$JS.API.STREAM.DELETE.{prefix}-order")["success"]
        with pytest.raises(BackendUnavailable):
            await worker.publish("lost")
        await until(lambda: len(worker.events) == 2)
        assert [type(event) for event in worker.events] == [BackendLost, BackendRegained]
        await worker.publish("back")
        await worker.reached_by("back")


async def test_a_stream_that_takes_nothing_is_an_outage(nats: Broker, prefix: str) -> None:
    """Here because an administrator has limited it."""
    async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
        with connected(nats.url) as client:
            name = f"{prefix}-order"
            config = client.ask(f"$JS.API.STREAM.INFO.{name}")["config"]
            client.ask(f"$JS.API.STREAM.UPDATE.{name}", {**config, "max_msg_size": 10})
            with pytest.raises(BackendUnavailable):
                await worker.publish("too long for it")
            await until(lambda: "took nothing" in str(worker.backend.health().problem))
            client.ask(f"$JS.API.STREAM.DELETE.{name}")
        await until(lambda: worker.backend.health().ready)


async def test_a_name_that_jetstream_does_not_take(nats: Broker, prefix: str) -> None:
    """What it says is told: here that another stream has the subjects already."""
    with connected(nats.url) as client:
        settings = {"name": f"{prefix}-other", "subjects": [f"{prefix}.publish.>"]}
        assert "error" not in client.ask(f"$JS.API.STREAM.CREATE.{prefix}-other", settings)
        async with Worker(NatsBackend(nats.url, prefix=prefix)).running() as worker:
            assert "JetStream says: subjects overlap" in str(worker.backend.health().problem)
            client.ask(f"$JS.API.STREAM.DELETE.{prefix}-other")
            await until(lambda: worker.backend.health().ready)


def make_cluster(number: int = 3) -> list[NatsServer]:
    """Return servers that know each other."""
    ports = [free_port() for _ in range(number)]
    names = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    cluster = 'cluster {{{{ name: c, listen: "127.0.0.1:{}", routes: [{}] }}}}\nserver_name: n{}\n'
    return [NatsServer(JETSTREAM + cluster.format(port, names, port)) for port in ports]


@pytest.mark.one_loop
async def test_workers_on_all_nodes_of_a_cluster_see_one_order(prefix: str) -> None:
    """Wherever they publish."""
    servers = make_cluster()
    with running(*servers):
        workers = [Worker(NatsBackend(server.url, prefix=prefix)) for server in servers]
        async with AsyncExitStack() as stack:
            for worker in workers:
                await stack.enter_async_context(worker.running())
            await until(lambda: all(one.backend.health().ready for one in workers), 30)
            # Routes need a moment to hear of subscriptions.
            for name, worker in enumerate(workers):
                while not all(f"here is {name}" in one.texts for one in workers):
                    await worker.publish(f"here is {name}")

            async def talk(name: int, worker: Worker) -> None:
                for number in range(100):
                    await worker.publish(f"{name}: {number}")

            await asyncio.gather(*(talk(*named) for named in enumerate(workers)))

            def said() -> list[list[str]]:
                return [[text for text in map(str, one.texts) if ":" in text] for one in workers]

            await until(lambda: all(len(texts) == 300 for texts in said()))
            assert said() == [said()[0]] * 3
