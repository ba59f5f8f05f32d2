"""uvicorn stops, or reloads, within seconds, whatever handlers and clients are busy with."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

from tests.managed import ManagedApp, echo
from tests.ports import is_free
from wshub import ConnectionManager
from wshub.testing import (
    HalfOpenClient,
    StalledClient,
    connect,
    live_server,
    until,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from wshub import Connection

ROOT = Path(__file__).parents[1]
APP = ROOT / "tests" / "waiting_app.py"
PROMPTLY = 8.0
"""Seconds; two are expected, and without a bound of ours there would be no end at all."""


async def wait_for_news(connection: Connection) -> None:
    """Wait for a queue of the app's own."""
    await asyncio.Queue[str]().get()


async def push(connection: Connection) -> None:
    """Send now and then, and never receive."""
    while True:
        await connection.send("tick")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("handler", [wait_for_news, push])
async def test_handlers_that_do_not_receive_end_at_a_shutdown(
    ws: str, handler: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Need 9: the server waits for them without a bound of its own, and they end quietly."""
    manager = ConnectionManager(handler_grace=0.1)
    managed = ManagedApp(handler, manager)  # type: ignore[arg-type]
    async with (
        live_server(managed.app, ws=ws, timeout_graceful_shutdown=None) as server,
        connect(f"{server.ws}/ws") as client,
    ):
        await until(lambda: managed.opened)
        server.uvicorn.should_exit = True
        assert (await client.closed())[0] == 1012
        await until(lambda: managed.outcomes == [None], timeout=PROMPTLY)
    (connection,) = managed.opened
    assert connection.closed is not None
    how = (connection.closed.code, connection.closed.by)
    # Whoever pushes may meet the closed transport before the server's word is read.
    assert how == (1012, "server") or (how == (1006, "peer") and handler is push)
    assert "ERROR" not in caplog.text


async def test_a_client_that_floods_does_not_hold_up_a_shutdown(ws: str) -> None:
    """The server's 1012 is behind messages that nobody takes, and is seen all the same."""
    managed = ManagedApp(wait_for_news, ConnectionManager(read_ahead=4, handler_grace=0.1))
    async with (
        live_server(managed.app, ws=ws, timeout_graceful_shutdown=None) as server,
        connect(f"{server.ws}/ws") as client,
    ):
        for number in range(50):
            await client.send(f"{number}")
        await until(lambda: managed.manager.statistics().received >= 4)
        server.uvicorn.should_exit = True
        await until(lambda: managed.outcomes == [None], timeout=PROMPTLY)


async def test_handlers_end_by_themselves_at_a_shutdown(ws: str) -> None:
    """A loop over the connection is not cancelled: it ends, and what follows runs."""
    farewells = []

    async def loop(connection: Connection) -> None:
        await echo(connection)
        await asyncio.sleep(0.01)
        farewells.append(connection.closed)

    managed = ManagedApp(loop)
    async with (
        live_server(managed.app, ws=ws, timeout_graceful_shutdown=None) as server,
        connect(f"{server.ws}/ws") as client,
    ):
        assert await client.ask("in") == "in"
        server.uvicorn.should_exit = True
        await until(lambda: managed.outcomes == [None])
    assert [str(closed) for closed in farewells] == ["connection closed by the server with 1012"]


# --- uvicorn as a process


class Uvicorn:
    """
    A uvicorn that runs as a process of its own.

    Attributes:
        process: The process.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it listens, or nothing yet."""
        found = re.search(r"Uvicorn running on http://(127\.0\.0\.1:\d+)", self.log)
        return f"ws://{found[1]}" if found else ""

    def has_started(self, times: int) -> bool:
        """Whether an app has started in it so often, and clients can connect."""
        # With `--reload` both lines are written before anybody listens.
        port = urlsplit(self.url).port
        started = self.log.count("Application startup complete")
        return port is not None and started == times and not is_free(port)

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None


@contextmanager
def uvicorn(directory: Path, *arguments: str) -> Iterator[Uvicorn]:
    """Run `python -m uvicorn` with some arguments in `directory`; at the end nothing is left."""
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--port", "0", *arguments],
            cwd=directory,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Uvicorn(process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("implementation", "loop"),
    [("websockets-sansio", "uvloop"), ("wsproto", "asyncio"), ("websockets", "asyncio")],
)
def test_sigterm_ends_a_server_within_seconds(
    implementation: str, loop: str, tmp_path: Path
) -> None:
    """Need 9: without `--timeout-graceful-shutdown`, and with clients of every kind connected."""
    options = ("--app-dir", str(ROOT), "--ws", implementation, "--loop", loop)
    with uvicorn(tmp_path, *options, "tests.waiting_app:app") as server:
        wait_until(lambda: server.has_started(1), timeout=30)
        asyncio.run(_stop_with_clients(server))
    assert "Application shutdown complete" in server.log
    assert "Traceback" not in server.log


async def _stop_with_clients(server: Uvicorn) -> None:
    async with (
        connect(f"{server.url}/wait") as waits,
        connect(f"{server.url}/push") as reads,
        connect(f"{server.url}/wait") as floods,
        HalfOpenClient(f"{server.url}/wait"),
        StalledClient(f"{server.url}/push"),
    ):
        for client in (waits, reads, floods):
            assert await client.receive() == "welcome"
        for number in range(200):
            await floods.send(f"{number}")
        for _ in range(100):  # by then the stalled client blocks the server
            await reads.receive()
        server.process.send_signal(signal.SIGTERM)
        assert (await waits.closed())[0] == (await reads.closed())[0] == 1012
        await until(lambda: server.ended, timeout=PROMPTLY)


def test_a_reload_ends_within_seconds(ws: str, tmp_path: Path) -> None:
    """Need 9: with `--reload` a changed file brings up a new server though clients are there."""
    main = tmp_path / "main.py"
    shutil.copy(APP, main)
    with uvicorn(tmp_path, "--reload", "--ws", ws, "main:app") as server:
        wait_until(lambda: server.has_started(1), timeout=30)
        with (
            connect_sync(f"{server.url}/wait") as waits,
            connect_sync(f"{server.url}/push") as reads,
        ):
            assert waits.recv(5) == reads.recv(5) == "welcome"
            main.write_text(main.read_text() + "\n# changed\n")
            assert _code_of(waits) == _code_of(reads) == 1012
            wait_until(lambda: server.has_started(2), timeout=2 * PROMPTLY)
        with connect_sync(f"{server.url}/wait") as again:
            assert again.recv(5) == "welcome"
            server.process.send_signal(signal.SIGTERM)
            assert _code_of(again) == 1012
            wait_until(lambda: server.ended, timeout=PROMPTLY)
    assert "Traceback" not in server.log


def _code_of(client: ClientConnection) -> int | None:
    """Return the close code that a client gets, which reads until then."""
    with suppress(ConnectionClosed):
        while True:
            client.recv(PROMPTLY)
    return client.close_code
