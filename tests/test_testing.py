"""What wshub.testing promises: real servers, waits that end, a clock, fixtures."""

from __future__ import annotations

import asyncio
import importlib
import signal
import socket
import sys
import threading
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvloop
from fastapi import FastAPI, WebSocket
from websockets.sync.client import connect as connect_blocking

from tests.managed import ManagedApp, echo, hold
from tests.ports import is_free
from wshub.testing import (
    FakeClock,
    FaultySink,
    HalfOpenClient,
    RawClient,
    StalledClient,
    connect,
    live_server,
    until,
    wait_until,
)
from wshub.testing.deadline import deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send


pytest_plugins = ["pytester"]


def live_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "wshub live server"]


async def start_badly(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail in the lifespan, with an error that a test can look for."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise LookupError("no database")


# --- the server


@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop"])
async def test_a_live_server_leaves_nothing(ws: str, loop: Any) -> None:
    """It serves in the test's event loop, or in a thread; at the end socket and thread are gone."""
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=ws, loop=loop) as server:
        assert len(live_threads()) == (loop is not None)
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("hello") == "hello"
            await until(lambda: server.connections == 1)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.http}/ws")).status_code == 404
    assert live_threads() == []
    assert is_free(server.port)
    assert server.connections == 0


async def test_a_live_server_writes_without_delay() -> None:
    """As under `uvicorn main:app`, no write waits until the one before it is acknowledged."""
    managed = ManagedApp(echo)
    async with live_server(managed.app) as server, connect(f"{server.ws}/ws"):
        await until(lambda: server.connections == 1)
        (connection,) = server.uvicorn.server_state.connections
        taken = connection.transport.get_extra_info("socket")
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_live_server_beside_a_synchronous_test(loop: Any) -> None:
    """With an event loop of its own it serves a test that has none, on the loop it is asked for."""
    app, loops = FastAPI(), list[asyncio.AbstractEventLoop]()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        loops.append(asyncio.get_running_loop())
        await websocket.send_text(await websocket.receive_text())

    with live_server(app, loop=loop) as server:
        with connect_blocking(server.ws, proxy=None) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        wait_until(lambda: server.connections == 0)
    assert isinstance(loops[0], uvloop.Loop) == (loop == "uvloop")
    assert live_threads() == []
    assert is_free(server.port)


async def test_options_reach_uvicorn() -> None:
    """The port, uvicorn's own options, and the lifespan of the app work as on the command line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with live_server(FastAPI(), port=port, root_path="/behind", lifespan="off") as server:
        assert (server.port, server.ws) == (port, f"ws://127.0.0.1:{port}")
        assert server.uvicorn.config.root_path == "/behind"


async def test_signals_stay_with_the_test() -> None:
    """Ctrl-C stops the test, not a server in it."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with live_server(FastAPI()):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("loop", [None, "asyncio"])
async def test_a_taken_port_is_said_at_once(loop: Any) -> None:
    """The error names the address, and nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = live_server(FastAPI(), port=port, loop=loop)
        with pytest.raises(OSError, match=f"127.0.0.1.*{port}"):
            await server.__aenter__()
    assert live_threads() == []


@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop"])
async def test_an_app_that_does_not_start_is_an_error(loop: Any) -> None:
    """The error of its lifespan is the cause; the event loop of the test goes on."""
    server = live_server(start_badly, loop=loop)
    with pytest.raises(RuntimeError, match="did not start: no database") as caught:
        await server.__aenter__()
    assert isinstance(caught.value.__cause__, LookupError)
    assert live_threads() == []
    assert is_free(server.port)


def test_an_app_that_does_not_start_is_an_error_without_a_loop_too() -> None:
    """The same in a synchronous test."""
    server = live_server(start_badly, loop="asyncio")
    with pytest.raises(RuntimeError, match="did not start: no database"):
        server.__enter__()
    assert live_threads() == []


async def test_a_lifespan_may_fail_without_an_error() -> None:
    """ASGI has an event for that."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(RuntimeError, match="did not start: its lifespan failed"):
        await live_server(app).__aenter__()


async def test_a_missing_protocol_is_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of uvicorn says what is missing."""
    monkeypatch.setitem(sys.modules, "wsproto", None)
    monkeypatch.delitem(sys.modules, "uvicorn.protocols.websockets.wsproto_impl", raising=False)
    with pytest.raises(RuntimeError, match=r"did not start: .*wsproto"):
        await live_server(FastAPI(), ws="wsproto").__aenter__()


async def never_ready(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for ever in the lifespan."""
    await receive()
    await asyncio.sleep(3600)


@asynccontextmanager
async def slow_to_stop(_: FastAPI) -> AsyncIterator[None]:
    yield
    await asyncio.sleep(3600)


@pytest.mark.parametrize("loop", [None, "asyncio"])
async def test_a_start_that_takes_too_long_is_given_up(loop: Any) -> None:
    """The lifespan is cancelled, and nothing of it is left."""
    server = live_server(never_ready, loop=loop, timeout=0.1)
    with pytest.raises(TimeoutError, match=r"waited 0\.1 seconds for the app to start"):
        await server.__aenter__()
    assert live_threads() == []
    assert is_free(server.port)


def test_a_start_that_takes_too_long_is_given_up_without_a_loop_too() -> None:
    """The same in a synchronous test."""
    server = live_server(never_ready, loop="asyncio", timeout=0.1)
    with pytest.raises(TimeoutError, match=r"waited 0\.1 seconds for the app to start"):
        server.__enter__()
    assert live_threads() == []


@pytest.mark.parametrize("loop", [None, "asyncio"])
async def test_a_stop_that_takes_too_long_is_given_up(loop: Any) -> None:
    """The lifespan is cancelled, the error says what was left, and what failed before is kept."""
    with pytest.raises(TimeoutError, match=r"did not stop within 0\.4 seconds") as caught:
        async with live_server(FastAPI(lifespan=slow_to_stop), loop=loop, timeout=0.4):
            raise LookupError("of the test")
    assert isinstance(caught.value.__cause__, LookupError)
    assert live_threads() == []


def test_a_stop_that_takes_too_long_is_given_up_without_a_loop_too() -> None:
    """The same in a synchronous test."""
    app = FastAPI(lifespan=slow_to_stop)
    with (
        pytest.raises(TimeoutError, match="left were 0 connections and 0 handlers"),
        live_server(app, loop="asyncio", timeout=0.4),
    ):
        pass
    assert live_threads() == []


async def test_a_test_that_is_cancelled_ends_its_server() -> None:
    """A deadline around the whole test is no reason to leave a server behind."""
    managed = ManagedApp(hold)
    server = live_server(managed.app, timeout_graceful_shutdown=None)

    async def use() -> None:
        async with server, HalfOpenClient(f"{server.ws}/ws"):
            await until(lambda: managed.opened)
            server.uvicorn.should_exit = True
            await server.__aexit__(None, None, None)

    using = asyncio.create_task(use())
    await until(lambda: server.uvicorn.should_exit)
    using.cancel()
    await asyncio.wait({using})
    assert using.cancelled()
    assert is_free(server.port)


async def test_connections_that_outlive_the_server_are_dropped(ws: str) -> None:
    """A client that reads nothing, and a handler that sends for ever, leave no socket."""
    app, cancelled = FastAPI(), list[bool]()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(0)  # as an eager task it would run before uvicorn has set its protocol
        try:
            while True:
                await websocket.send_bytes(bytes(1000))
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    options: dict[str, Any] = {"send_buffer": 4096, "timeout_graceful_shutdown": 0}
    async with AsyncExitStack() as stack:
        async with live_server(app, ws=ws, **options) as server:
            await stack.enter_async_context(StalledClient(server.ws))
            (transport,) = [one.transport for one in server.uvicorn.server_state.connections]
            await until(transport.get_write_buffer_size)
        assert cancelled == [True]
        await until(lambda: server.connections == 0)


async def test_a_server_that_fails_is_an_error_of_the_test() -> None:
    """What uvicorn raises while it runs is not lost."""

    async def fail() -> None:
        raise LookupError("out of order")

    server = live_server(FastAPI(), callback_notify=fail, timeout_notify=0)
    with pytest.raises(RuntimeError, match="the server failed: out of order") as caught:
        async with server:
            await until(lambda: is_free(server.port))
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_server_that_fails_is_an_error_of_a_synchronous_test() -> None:
    """The same, in a thread."""

    async def fail() -> None:
        raise LookupError("out of order")

    server = live_server(FastAPI(), loop="uvloop", callback_notify=fail, timeout_notify=0)
    with pytest.raises(RuntimeError, match="the server failed: out of order"), server:
        wait_until(lambda: is_free(server.port))


def test_a_server_without_a_loop_needs_one() -> None:
    """`with` has no event loop to share."""
    server = live_server(FastAPI())
    with pytest.raises(TypeError, match="needs loop='asyncio' or loop='uvloop'"):
        server.__enter__()


def test_an_unknown_loop_is_refused() -> None:
    """A misspelt name is a ValueError, at once."""
    with pytest.raises(ValueError, match=r"loop must be 'asyncio' or 'uvloop'.*'trio'"):
        live_server(FastAPI(), loop="trio")  # type: ignore[arg-type]


async def test_a_server_runs_once() -> None:
    """Its uvicorn server cannot start again."""
    async with live_server(FastAPI()) as server:
        with pytest.raises(RuntimeError, match="a live server runs once"):
            await server.__aenter__()


async def test_a_handler_that_blocks_its_thread_does_not_block_the_test() -> None:
    """The stop gives up in time, though nothing can be done about the thread."""
    app, entered, release = FastAPI(), threading.Event(), threading.Event()

    @app.websocket("/")
    async def handle(websocket: WebSocket) -> None:
        await websocket.accept()
        entered.set()
        release.wait(30)

    async with live_server(app, loop="asyncio", timeout=0.3) as server, RawClient(server.ws):
        await until(entered.is_set)
        with pytest.raises(TimeoutError, match="left were 1 connections and 1 handlers"):
            await server.__aexit__(None, None, None)
        assert [thread.daemon for thread in live_threads()] == [True]
        release.set()
    await until(lambda: not live_threads())


# --- waiting


async def test_until_shows_what_it_waited_for() -> None:
    """The condition as it is written, or by a name of the test's own."""
    ticks = 1
    with pytest.raises(TimeoutError, match=r"waited 0\.01 seconds for .*lambda: not ticks"):
        await until(lambda: not ticks, 0.01)
    with pytest.raises(TimeoutError, match=r"for functools\.partial"):
        await until(partial(bool, 0), 0.01)
    with pytest.raises(TimeoutError, match="for a miracle"):
        await until(lambda: False, 0.01, awaited="a miracle")


def test_wait_until_shows_it_too() -> None:
    """The same for a test without an event loop."""
    looks = iter([False, False, True])
    wait_until(lambda: next(looks))
    ticks = 1
    with pytest.raises(TimeoutError, match=r"waited 0\.01 seconds for .*lambda: not ticks"):
        wait_until(lambda: not ticks, 0.01)
    with pytest.raises(TimeoutError, match="for a miracle"):
        wait_until(lambda: False, 0.01, awaited="a miracle")


async def test_a_timeout_inside_a_deadline_is_its_own() -> None:
    """Only the deadline that has passed renames the error."""
    with pytest.raises(TimeoutError, match="of the block"):
        async with deadline(10, "something else"):
            raise TimeoutError("of the block")


# --- the sink


async def test_a_faulty_sink_is_a_connection_until_a_fault_is_set() -> None:
    """What the app sends is noted, what the test puts in is received, and faults are raised."""
    sink = FaultySink()
    await sink.websocket.accept()
    await sink.websocket.send_text("hello")
    assert [event["type"] for event in sink.sent] == ["websocket.accept", "websocket.send"]
    sink.events.put_nowait({"type": "websocket.receive", "text": "hi"})
    assert await sink.websocket.receive_text() == "hi"
    sink.events.put_nowait(LookupError("out of order"))
    with pytest.raises(LookupError, match="out of order"):
        await sink.websocket.receive_text()
    sink.fault = LookupError("broken")
    with pytest.raises(LookupError, match="broken"):
        await sink.websocket.send_text("lost")
    assert len(sink.sent) == 2


async def test_a_send_to_a_faulty_sink_may_block() -> None:
    """Until it is let go, until its own timeout, or until it is cancelled."""
    sink = FaultySink()
    await sink.websocket.accept()
    sink.blocked = asyncio.Event()
    waiting = asyncio.create_task(sink.websocket.send_text("waits"))
    await asyncio.sleep(0)
    assert not waiting.done()
    sink.blocked.set()
    await waiting
    sink.blocked.clear()
    cancelled = asyncio.create_task(sink.websocket.send_text("never"))
    await asyncio.sleep(0)
    sink.on_cancel = LookupError("while cleaning up")
    cancelled.cancel()
    with pytest.raises(LookupError, match="while cleaning up"):
        await cancelled
    sink.send_timeout = 0.01
    with pytest.raises(TimeoutError):
        await sink.websocket._send({"type": "websocket.send", "text": "too late"})
    assert [event.get("text") for event in sink.sent] == [None, "waits"]


async def test_a_faulty_sink_may_take_its_time() -> None:
    """A turn of the event loop, some seconds, or whatever a gate takes that others wait for too."""
    sink, loop = FaultySink(), asyncio.get_running_loop()
    await sink.websocket.accept()
    sink.yields, sink.pace = True, 0.02
    started = loop.time()
    await sink.websocket.send_text("slow")
    assert loop.time() - started >= 0.015
    sink.yields, sink.gate = False, loop.create_future()
    waiting = asyncio.create_task(sink.websocket.send_text("gated"))
    await asyncio.sleep(0)
    assert not waiting.done()
    sink.gate.set_result(None)
    await waiting
    assert [event.get("text") for event in sink.sent] == [None, "slow", "gated"]


# --- the clock


async def test_a_fake_clock_calls_back_in_order() -> None:
    """By time, then by who came first, each at its own time, and never one that is cancelled."""
    clock, called = FakeClock(), list[tuple[str, float]]()

    def note(name: str) -> None:
        called.append((name, clock.time()))

    clock.call_later(2, note, "late")
    clock.call_later(1, note, "early")
    clock.call_later(1, note, "early too")
    clock.call_later(-5, note, "overdue")
    cancelled = clock.call_later(1, note, "never")
    assert clock.waiting == 5
    cancelled.cancel()
    assert (clock.waiting, clock.time()) == (4, 0)
    await clock.advance(1.5)
    assert called == [("overdue", 0), ("early", 1), ("early too", 1)]
    assert (clock.waiting, clock.time()) == (1, 1.5)
    await clock.advance(0.5)
    assert called[3:] == [("late", 2)]


async def test_what_a_timer_starts_is_due_in_the_same_advance() -> None:
    """Tasks run in between, and may set timers that come before the end of it."""
    clock, called = FakeClock(), list[float]()

    async def repeat() -> None:
        called.append(clock.time())
        clock.call_later(1, start)

    tasks = set[asyncio.Task[None]]()

    def start() -> None:
        tasks.add(asyncio.create_task(repeat()))

    clock.call_later(1, start)
    await clock.advance(3)
    assert called == [1, 2, 3]
    assert clock.waiting == 1
    await asyncio.wait(tasks)


async def test_time_does_not_go_back() -> None:
    """Nor does a fake clock."""
    with pytest.raises(ValueError, match="time does not go back: -1"):
        await FakeClock().advance(-1)


# --- fixtures


def test_the_fixtures_work_in_a_suite_of_their_own(pytester: pytest.Pytester) -> None:
    """Named in a conftest they are there, also in pytest-asyncio's strict mode."""
    pytester.makeconftest('pytest_plugins = ["wshub.testing.fixtures"]')
    pytester.makepyfile(
        """
        import asyncio
        import pytest
        from wshub.testing import fixtures

        pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("nothing_left_behind")]
        fixtures.PATIENCE = 0.1

        async def test_tidy(fake_clock):
            called = []
            fake_clock.call_later(1, called.append, "now")
            await fake_clock.advance(1)
            assert called == ["now"]
            asyncio.create_task(asyncio.sleep(0.01))

        async def test_untidy():
            asyncio.create_task(asyncio.sleep(3600), name="forgotten")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-o", "asyncio_mode=strict")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the test left tasks running:*forgotten*"])


# --- what is not installed


@pytest.mark.parametrize(
    ("missing", "use", "package", "install"),
    [
        ("uvicorn", lambda: live_server(FastAPI()), "uvicorn", r"wshub\[testing\]"),
        (
            "websockets.asyncio.client",
            lambda: asyncio.run(connect("ws://127.0.0.1:9").__aenter__()),
            "websockets",
            r"wshub\[testing\]",
        ),
        ("uvloop", lambda: live_server(FastAPI(), loop="uvloop"), "uvloop", "uvloop"),
        (
            "pytest_asyncio",
            lambda: importlib.import_module("wshub.testing.fixtures"),
            "pytest_asyncio",
            r"wshub\[testing\]",
        ),
    ],
)
def test_what_is_missing_is_named(
    missing: str, use: Any, package: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extra is needed when it is used, and the error says how to install it."""
    monkeypatch.delitem(sys.modules, "wshub.testing.fixtures")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"needs {package}; pip install '{install}'"):
        use()
