"""Publishing from outside an app: other loops, threads, processes, and what can go wrong there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery import Celery

import wshub.publisher as publisher_module
from tests.brokers.kinds import REDIS, SIMPLE
from tests.brokers.site import Site
from wshub import BackendRefused, BackendUnavailable, ConnectionManager, InvalidUserId
from wshub.backends import MemoryBackend
from wshub.publisher import Publisher
from wshub.testing import until, wait_until
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tests.brokers.kinds import Broker, Kind
    from wshub.backends import Receiver
    from wshub.messages import Audience, Envelope

ROOT = Path(__file__).parents[1]


@pytest.fixture
def redis(started: Callable[[Kind], Broker]) -> Broker:
    return started(REDIS)


@pytest.fixture(autouse=True)
def no_thread_left() -> object:
    """Every publisher that a test closes has ended its thread."""
    yield
    wait_until(lambda: not threads(), awaited="the threads of publishers to end")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wshub Publisher"]


@asynccontextmanager
async def site_of(kind: Kind, broker: Broker, prefix: str) -> AsyncGenerator[Site, None]:
    async with Site(kind.make(broker.url, prefix=prefix)).running() as site:
        yield site


class HangingBackend:
    """Never answers, from some point on."""

    def __init__(self, *, starts: bool) -> None:
        self.health = MemoryBackend().health
        self.starts = starts
        self.cancelled = threading.Event()
        self._stopped = asyncio.Event()

    def attach(self, receiver: Receiver) -> None: ...

    async def start(self) -> None:
        if not self.starts:
            await self._hang()

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.sleep(0.01)

    async def publish(self, envelope: Envelope) -> None:
        await self._hang()

    def subscribe(self, audience: Audience, name: str) -> None: ...

    def unsubscribe(self, audience: Audience, name: str) -> None: ...

    async def subscribed(self, audience: Audience, name: str) -> None: ...

    async def _hang(self) -> None:
        try:
            await self._stopped.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise BackendUnavailable("HangingBackend", "it is stopped")


async def test_it_reaches_the_connections_of_an_app(
    kind: Kind, broker: Broker, prefix: str
) -> None:
    """Everyone, a room, a user; some are left out; a user is disconnected."""
    async with (
        site_of(kind, broker, prefix) as site,
        Publisher(kind.make(broker.url, prefix=prefix)) as publisher,
        site.connect("user=ann&room=tea") as ann,
        site.connect("room=tea") as bob,
        site.connect("user=eve") as eve,
    ):
        await site.has(3)
        excluded = next(one.id for one in site.managed.opened if one.user == "eve")
        await publisher.broadcast("all")
        await publisher.broadcast({"text": "tea"}, room="tea")
        await publisher.send_to_user("ann", b"for ann")
        await publisher.broadcast("not eve", exclude=[excluded])
        await publisher.disconnect_user("ann", code=4001, reason="logged out")
        await publisher.broadcast("the end")
        assert [await ann.receive() for _ in range(4)] == [
            "all", '{"text":"tea"}', b"for ann", "not eve"
        ]  # fmt: skip
        assert await ann.closed() == (4001, "logged out")
        assert [await bob.receive() for _ in range(4)] == [
            "all", '{"text":"tea"}', "not eve", "the end"
        ]  # fmt: skip
        assert [await eve.receive() for _ in range(2)] == ["all", "the end"]


async def test_a_thread_publishes_without_an_event_loop(
    kind: Kind, broker: Broker, prefix: str
) -> None:
    """The verbs under `.sync` are the same; `with` connects and lets go."""

    def publish() -> None:
        with Publisher(kind.make(broker.url, prefix=prefix)).sync as publisher:
            publisher.broadcast("all")
            publisher.broadcast("tea", room="tea")
            publisher.send_to_user("ann", "for ann")
            publisher.disconnect_user("ann", code=4001)

    async with (
        site_of(kind, broker, prefix) as site,
        site.connect("user=ann&room=tea") as ann,
    ):
        await site.has(1)
        await asyncio.to_thread(publish)
        assert [await ann.receive() for _ in range(3)] == ["all", "tea", "for ann"]
        assert await ann.closed() == (4001, "")


async def test_a_thread_with_a_running_event_loop_may_block(redis: Broker, prefix: str) -> None:
    """As synchronous code does that was called from a coroutine."""
    publisher = Publisher(REDIS.make(redis.url, prefix=prefix))
    async with site_of(REDIS, redis, prefix) as site, site.connect() as client:
        await site.has(1)
        publisher.sync.broadcast("blocking")
        await publisher.broadcast("awaited")
        assert [await client.receive() for _ in range(2)] == ["blocking", "awaited"]
        await publisher.close()


async def test_threads_and_loops_share_one_publisher(redis: Broker, prefix: str) -> None:
    """Each of them hears nothing of the others, and what it publishes arrives in its order."""
    publisher = Publisher(REDIS.make(redis.url, prefix=prefix))

    async def talk(name: str) -> None:
        for number in range(30):
            await publisher.broadcast(f"{name} {number}")

    def shout(name: str) -> None:
        for number in range(30):
            publisher.sync.broadcast(f"{name} {number}")

    async with site_of(REDIS, redis, prefix) as site, site.connect() as client:
        await site.has(1)
        await asyncio.gather(
            talk("this loop"),
            asyncio.to_thread(lambda: asyncio.run(talk("another loop"))),
            asyncio.to_thread(shout, "one thread"),
            asyncio.to_thread(shout, "another thread"),
        )
        heard = [str(await client.receive()) for _ in range(120)]
        for name in ("this loop", "another loop", "one thread", "another thread"):
            own = [text for text in heard if text.startswith(name)]
            assert own == [f"{name} {number}" for number in range(30)]
        assert len(threads()) == 1
        await publisher.close()
        await publisher.close()


def test_it_needs_a_backend_of_its_own_that_reaches_others(redis: Broker) -> None:
    """In memory there is nobody to reach; a manager's backend is the manager's."""
    with pytest.raises(ValueError, match="reaches no other process"):
        Publisher(MemoryBackend())
    with pytest.raises(ValueError, match="timeout must be positive"):
        Publisher(REDIS.make(redis.url), timeout=0)
    backend = REDIS.make(redis.url)
    ConnectionManager(backend=backend)
    with pytest.raises(RuntimeError, match="belongs to somebody else; make another one"):
        Publisher(backend)


async def test_what_makes_no_sense_is_refused_at_once(redis: Broker) -> None:
    """Before anything is connected."""
    publisher = Publisher(REDIS.make(redis.url))
    with pytest.raises(TypeError, match="exclude is a collection"):
        await publisher.broadcast("hi", exclude="id")
    with pytest.raises(InvalidUserId):
        publisher.sync.send_to_user("", "hi")
    with pytest.raises(ValueError, match="1005"):
        publisher.sync.disconnect_user("ann", code=1005)
    assert threads() == []


async def test_a_closed_publisher_says_so(redis: Broker, prefix: str) -> None:
    """Whether it was used or not."""
    for use in (True, False):
        publisher = Publisher(REDIS.make(redis.url, prefix=prefix))
        if use:
            await publisher.broadcast("hi")
        publisher.sync.close()
        assert threads() == []
        with pytest.raises(RuntimeError, match="is closed; make another one"):
            await publisher.broadcast("hi")


async def test_calls_that_wait_while_it_is_closed_end(redis: Broker) -> None:
    """None of them starts it again."""
    publisher = Publisher(HangingBackend(starts=False))
    calls = [asyncio.create_task(publisher.broadcast("hi")) for _ in range(2)]
    await until(threads)
    await asyncio.sleep(0.05)
    await publisher.close()
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, BackendUnavailable)
    assert isinstance(second, RuntimeError)


@pytest.mark.parametrize("starts", [True, False])
def test_every_wait_has_an_end(*, starts: bool) -> None:
    """Also with a backend that never answers; the error tells what may have been published."""
    publisher = Publisher(HangingBackend(starts=starts), timeout=0.1)
    with pytest.raises(BackendUnavailable, match=r"within 0\.1 seconds") as unavailable:
        publisher.sync.broadcast("hi")
    assert unavailable.value.uncertain == starts
    publisher.sync.close()


class BlockingBackend(HangingBackend):
    """Holds up its thread for half a second, which none should do."""

    async def publish(self, envelope: Envelope) -> None:
        time.sleep(0.5)  # noqa: ASYNC251


async def test_a_thread_that_is_held_up_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for it has a deadline of its own."""
    monkeypatch.setattr(publisher_module, "GRACE", 0.05)
    publisher = Publisher(BlockingBackend(starts=True), timeout=0.05)
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match=r"within 0\.05 seconds") as unavailable:
        publisher.sync.broadcast("hi")
    assert unavailable.value.uncertain
    with pytest.raises(BackendUnavailable, match=r"within 0\.05 seconds"):
        await publisher.broadcast("hi")
    assert time.monotonic() - began < 0.4
    monkeypatch.setattr(publisher._session, "_timeout", DEADLINE)
    await publisher.close()


async def test_a_call_that_is_cancelled_is_withdrawn() -> None:
    """The backend's own call is cancelled with it."""
    backend = HangingBackend(starts=True)
    publisher = Publisher(backend)
    call = asyncio.create_task(publisher.broadcast("hi"))
    await until(threads)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await until(backend.cancelled.is_set)
    await publisher.close()


def test_an_interrupt_withdraws_a_blocking_call() -> None:
    """A person who presses Ctrl+C does not wait for the deadline."""
    backend = HangingBackend(starts=True)
    publisher = Publisher(backend)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGUSR1))
    try:
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            publisher.sync.broadcast("hi")
        assert time.monotonic() - began < 5
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    wait_until(backend.cancelled.is_set)
    publisher.sync.close()


async def test_no_server_is_no_secret(unused_tcp_port: int) -> None:
    """A call waits for the server as long as the backend does, and says what is wrong."""
    url = f"redis://127.0.0.1:{unused_tcp_port}/0"
    async with Publisher(REDIS.make(url, publish_timeout=0.1)) as publisher:
        with pytest.raises(BackendUnavailable, match="Connect call failed") as unavailable:
            await publisher.broadcast("hi")
        assert not unavailable.value.uncertain


async def test_a_server_that_refuses_ends_the_block_before_it_begins(redis: Broker) -> None:
    """Nothing stays behind."""
    url = redis.url.replace("redis://", "redis://:s3cret@")
    with pytest.raises(BackendRefused, match="refuses the user or the password"):
        async with Publisher(REDIS.make(url)):
            pytest.fail("it began")  # pragma: no cover
    with (
        pytest.raises(BackendRefused, match="refuses the user or the password"),
        Publisher(REDIS.make(url)).sync,
    ):
        pytest.fail("it began")  # pragma: no cover
    publisher = Publisher(REDIS.make(url))
    for _ in range(2):
        with pytest.raises(BackendRefused):
            publisher.sync.broadcast("hi")
    publisher.sync.close()


FORKING = """
import json, os, sys, threading, time
from wshub.backends import backend_from_url
from wshub.publisher import Publisher

publisher = Publisher(backend_from_url(sys.argv[1], **json.loads(sys.argv[2])))
if sys.argv[3] == "used":
    publisher.sync.broadcast("parent, before")
if sys.argv[3] == "busy":
    import wshub.publisher
    held = threading.Event()
    def hold():
        with wshub.publisher._starting:
            held.set()
            time.sleep(0.3)
    threading.Thread(target=hold).start()
    held.wait()
child = os.fork()
if not child:
    try:
        publisher.sync.broadcast("child")
    except RuntimeError as error:
        print(error, flush=True)
    publisher.sync.close()
    sys.exit()
os.waitpid(child, 0)
publisher.sync.broadcast("parent")
"""


@contextmanager
def celery_worker(directory: Path, **environment: str) -> Generator[str, None, None]:
    """Run a worker of Celery with two children; return the folder that tasks are put into."""
    tasks = directory / "tasks"
    tasks.mkdir()
    command = [sys.executable, "-m", "celery", "--app", "tests.celery_app", "worker"]
    command += ["--pool", "prefork", "--concurrency", "2", "--loglevel", "warning"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    folders = {"TASKS": str(tasks), "TASKS_CONTROL": str(directory / "control")}
    settings = {**os.environ, **environment, **folders}
    process = subprocess.Popen(command, cwd=ROOT, env=settings)
    try:
        yield str(tasks)
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.one_loop
@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_tasks_of_celery_publish(
    kind: Kind, broker: Broker, prefix: str, tmp_path: Path
) -> None:
    """In children that it has forked, with a publisher that their parent has made."""
    options = json.dumps({**kind.options, "prefix": prefix})
    async with site_of(kind, broker, prefix) as site, site.connect("user=ann") as ann:
        await site.has(1)
        with celery_worker(tmp_path, HUB=broker.url, HUB_OPTIONS=options) as tasks:
            with Celery("tests", broker="filesystem://") as client:
                client.conf.broker_transport_options = {
                    "data_folder_in": tasks,
                    "data_folder_out": tasks,
                    "control_folder": str(tmp_path / "control"),
                }
                for number in range(10):
                    client.send_task("ship", [f"order {number}", "ann"])
            await until(lambda: not any(Path(tasks).iterdir()), 40)
            heard = [await ann.receive_json() for _ in range(10)]
        assert {told["order"] for told in heard} == {f"order {number}" for number in range(10)}


async def run(program: str, *arguments: str) -> str:
    """Run a program to its end, which must be a good one; return what it printed."""
    # Python warns of any fork from a process with threads, from 3.12 on.
    warnings = ("-W", "error::ResourceWarning", "-W", "ignore:This process:DeprecationWarning")
    command = [sys.executable, *warnings, "-c", program, *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.one_loop
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
async def test_a_child_connects_for_itself(kind: Kind, broker: Broker, prefix: str) -> None:
    """A publisher that was made before a fork, as by Celery, works in parent and child."""
    options = json.dumps({**kind.options, "prefix": prefix})
    async with site_of(kind, broker, prefix) as site, site.connect() as client:
        await site.has(1)
        assert await run(FORKING, broker.url, options, "unused") == ""
        assert [await client.receive() for _ in range(2)] == ["child", "parent"]


@pytest.mark.one_loop
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
async def test_a_fork_while_another_thread_begins_to_publish(redis: Broker, prefix: str) -> None:
    """It waits for that moment to pass; otherwise the child would wait for ever."""
    options = json.dumps({"prefix": prefix})
    async with site_of(REDIS, redis, prefix) as site, site.connect() as client:
        await site.has(1)
        assert await run(FORKING, redis.url, options, "busy") == ""
        assert [await client.receive() for _ in range(2)] == ["child", "parent"]


@pytest.mark.one_loop
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
async def test_a_child_leaves_its_parents_connection_alone(
    kind: Kind, broker: Broker, prefix: str
) -> None:
    """It is told so instead, and the parent goes on, whatever the child does."""
    options = json.dumps({**kind.options, "prefix": prefix})
    async with site_of(kind, broker, prefix) as site, site.connect() as client:
        await site.has(1)
        printed = await run(FORKING, broker.url, options, "used")
        assert "before the process was forked" in printed
        heard = [await client.receive() for _ in range(2)]
        assert heard == ["parent, before", "parent"]
        await site.manager.broadcast("the end")
        assert await client.receive() == "the end"


FORGETFUL = """
import sys
from wshub.backends import RedisBackend
from wshub.publisher import Publisher

class Told(RedisBackend):
    async def stop(self):
        await super().stop()
        print("stopped", flush=True)

Publisher(Told(sys.argv[1])).sync.broadcast("hi")
print("the end", flush=True)
"""


@pytest.mark.one_loop
async def test_a_program_that_forgets_to_close_ends_in_order(redis: Broker) -> None:
    """Its connections are closed, and it does not hang."""
    assert (await run(FORGETFUL, redis.url)).split("\n") == ["the end", "stopped", ""]
