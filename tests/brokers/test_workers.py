"""Real uvicorn workers behind each kind of broker: clients on all of them are one crowd."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers.processes import Server, running
from wshub.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.brokers.kinds import Broker, Kind
    from wshub.testing import Client

PREFIX = "workers"

pytestmark = pytest.mark.one_loop


@pytest.fixture(scope="module", params=[2, 4], ids=["two", "four"])
def workers(
    request: pytest.FixtureRequest, kind: Kind, broker: Broker
) -> Generator[list[Server], None, None]:
    """Two or four workers, each with a port of its own."""
    options = {**kind.options, "prefix": PREFIX}
    with running(broker.url, options, number=request.param) as servers:
        yield servers


class Crowd:
    """
    Clients, one or more on each worker.

    Attributes:
        clients: All of them.
        ids: Their connections.
    """

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.ids: list[str] = []
        self.workers: list[int] = []

    async def add(self, client: Client) -> None:
        self.clients.append(client)
        welcome = await client.receive_json()
        self.ids.append(welcome["id"])
        self.workers.append(welcome["worker"])

    async def receive(self, number: int = 1) -> list[list[str | bytes]]:
        """Return the next messages of each."""
        return [[await client.receive() for _ in range(number)] for client in self.clients]


@asynccontextmanager
async def crowd(
    servers: list[Server], query: str = "", number: int = 1
) -> AsyncGenerator[Crowd, None]:
    """Connect clients to each server."""
    async with AsyncExitStack() as stack:
        connected = Crowd()
        for server in servers:
            for _ in range(number):
                await connected.add(await stack.enter_async_context(server.connect(query)))
        yield connected


async def test_a_broadcast_reaches_everyone_once(workers: list[Server]) -> None:
    """Whichever worker sends it, each client of each worker gets it, and nothing twice."""
    async with crowd(workers, number=2) as everyone:
        for number, worker in enumerate(workers):
            await worker.broadcast(f"from {number}", "the same again")
            heard = await everyone.receive(2)
            assert heard == [[f"from {number}", "the same again"]] * 2 * len(workers)


async def test_a_room_spans_workers(workers: list[Server]) -> None:
    """Its members hear it, others do not, and who left does not."""
    async with crowd(workers, "room=tea&room=milk") as tea, crowd(workers, "room=milk") as milk:
        async with crowd(workers[:1], "room=tea"):
            pass
        await workers[0].broadcast("tea", room="tea")
        await workers[1].broadcast("milk", room="milk")
        await workers[-1].broadcast("the end")
        assert await tea.receive(3) == [["tea", "milk", "the end"]] * len(workers)
        assert await milk.receive(2) == [["milk", "the end"]] * len(workers)


async def test_the_sender_is_left_out_on_any_worker(workers: list[Server]) -> None:
    """By its connection, where it is, and by its id from elsewhere."""
    async with crowd(workers, "room=said", number=2) as people:
        await people.clients[0].send("hello")
        others = people.clients[1:]
        assert [await client.receive() for client in others] == ["hello"] * len(others)
        await workers[-1].broadcast("psst", room="said", exclude=",".join(people.ids[1:3]))
        await workers[-1].broadcast("the end", room="said")
        rest = [people.clients[0], *people.clients[3:]]
        assert [await client.receive() for client in rest] == ["psst"] * len(rest)
        assert await people.receive() == [["the end"]] * len(people.clients)


async def test_a_user_is_reached_on_every_worker(workers: list[Server]) -> None:
    """With tabs on several of them, and with none on the one that sends."""
    both = (crowd(workers, "user=ann"), crowd(workers[1:], "user=bob"))
    async with both[0] as ann, both[1] as bob:
        await workers[-1].request("POST", "/user/ann", json=["for ann"])
        await workers[0].request("POST", "/user/bob", json=["for bob"])
        await workers[0].request("POST", "/user/nobody", json=["for nobody"])
        await workers[0].broadcast("the end")
        assert await ann.receive(2) == [["for ann", "the end"]] * len(workers)
        assert await bob.receive(2) == [["for bob", "the end"]] * (len(workers) - 1)


async def test_a_user_is_disconnected_on_every_worker(workers: list[Server]) -> None:
    """After what was sent before, with the code and the reason; nobody else is."""
    async with crowd(workers, "user=ann") as ann, crowd(workers, "user=bob") as bob:
        await workers[1].request("POST", "/user/ann", json=["goodbye"])
        query = {"code": "4001", "reason": "logged öut"}
        await workers[1].request("DELETE", "/user/ann", params=query)
        for client in ann.clients:
            assert await client.receive() == "goodbye"
            assert await client.closed() == (4001, "logged öut")
        await workers[-1].broadcast("still here")
        assert await bob.receive() == [["still here"]] * len(workers)


async def test_all_workers_see_one_order(kind: Kind, workers: list[Server]) -> None:
    """All workers talk to a room at once: all clients read the same book, if the kind can."""
    async with crowd(workers, "room=tea") as readers:
        scripts = [[f"{worker} {line}" for line in range(100)] for worker in range(len(workers))]
        speeches = [
            worker.broadcast(*script, room="tea")
            for worker, script in zip(workers, scripts, strict=True)
        ]
        await asyncio.gather(*speeches)
        books = await readers.receive(100 * len(workers))
        if kind.has_common_order:
            assert books == [books[0]] * len(workers)
        for book in books:
            for number, script in enumerate(scripts):
                assert [line for line in book if str(line).startswith(f"{number} ")] == script


async def test_a_broadcast_is_one_message_of_the_broker(
    workers: list[Server], broker: Broker
) -> None:
    """Counted on the broker, with four members on each worker."""
    async with crowd(workers, "room=tea", number=4) as members:
        with broker.counting(PREFIX) as channels:
            await workers[0].broadcast(*map(str, range(50)), room="tea")
            await members.receive(50)
        assert len(channels) == 50
        assert len(set(channels)) == 1


async def test_a_worker_subscribes_to_what_its_clients_are_in(
    workers: list[Server], broker: Broker
) -> None:
    """One subscription for each room and user, none once they have left."""

    def count() -> int:
        return broker.subscriptions(PREFIX)

    await until(lambda: count() == 1)  # for everyone
    async with crowd(workers, "user=ann&room=tea&room=milk", number=2):
        assert count() == 4
    await until(lambda: count() == 1)


async def test_a_worker_that_is_killed_takes_nobody_with_it(
    kind: Kind, broker: Broker, workers: list[Server]
) -> None:
    """The others go on, and the broker forgets it."""
    options = {**kind.options, "prefix": PREFIX}
    async with crowd(workers, "room=tea") as others:
        with running(broker.url, options) as (doomed,):
            async with crowd([doomed], "room=milk") as lost:
                await doomed.broadcast("tea", room="tea")
                assert await others.receive() == [["tea"]] * len(workers)
                doomed.stop(signal.SIGKILL)
                assert (await lost.clients[0].closed())[0] == 1006
        await until(lambda: broker.subscriptions(PREFIX) == 2)  # everyone, and tea
        await workers[0].broadcast("more tea", room="tea")
        assert await others.receive() == [["more tea"]] * len(workers)


async def test_workers_of_one_port(kind: Kind, own_broker: Any) -> None:
    """As `uvicorn --workers 2` starts them: one crowd, also after the broker was killed."""
    options = {**kind.options, "prefix": PREFIX}
    with running(own_broker.url, options, "--workers", "2") as (server,):
        async with AsyncExitStack() as stack:
            people = Crowd()
            while len(set(people.workers)) < 2 or len(people.clients) < 8:
                await people.add(await stack.enter_async_context(server.connect("room=tea")))
            await server.broadcast("together", room="tea")
            assert await people.receive() == [["together"]] * len(people.clients)

            own_broker.kill()
            own_broker.start()
            outages: dict[int, list[str]] = {}
            async with asyncio.timeout(10):
                while len(outages) < 2:
                    state = await server.request("GET", "/state")
                    back = [state] if state["health"]["ready"] and state["outages"] else []
                    outages |= {state["worker"]: state["outages"] for state in back}
                    await asyncio.sleep(0.02)
            assert list(outages.values()) == [["BackendLost", "BackendRegained"]] * 2
            await server.broadcast("again", json.dumps({"a": 1}), room="tea")
            assert await people.receive(2) == [["again", '{"a": 1}']] * len(people.clients)
