"""A person in the rooms, an example as a process of its own, and a headless browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import async_playwright, expect

from tests.ports import free_port
from wshub.testing import connect
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request

    from wshub.testing import Client, LiveServer

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=DEADLINE * 1000)


class Visitor:
    """
    One tab of a person, as the rooms page would act for it.

    Attributes:
        client: What it is connected by.
        id: Who the others know it as.
        worker: The worker that it is connected to.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = ""
        self.worker = ""

    async def say(self, kind: str, **fields: object) -> None:
        """Send one message of the page's."""
        await self.client.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str, **expected: object) -> dict[str, Any]:
        """Return the next message of this type with these fields; skip what comes before."""
        async with asyncio.timeout(DEADLINE):
            while True:
                message: dict[str, Any] = json.loads(await self.client.receive())
                if message["type"] == kind and expected.items() <= message.items():
                    return message

    async def sees(self, room: str, *names: str, tabs: int | None = None) -> None:
        """Wait until these people, in any order, are in `room`, with so many tabs in all."""
        while True:
            people = (await self.hear("people", room=room))["people"]
            in_all = sum(person["tabs"] for person in people)
            seen = sorted(person["name"] for person in people)
            if seen == sorted(names) and tabs in {None, in_all}:
                return


@asynccontextmanager
async def _visit(
    server: LiveServer | Running, name: str, *rooms: str, key: str = ""
) -> AsyncIterator[Visitor]:
    query = urlencode({"name": name, "key": key or f"key of {name:16}", "room": rooms}, doseq=True)
    async with connect(f"{server.ws}/ws?{query}") as client:
        visitor = Visitor(client)
        welcome = await visitor.hear("welcome")
        visitor.id, visitor.worker = welcome["you"], welcome["worker"]
        yield visitor


@pytest.fixture
def visit() -> Callable[..., AbstractAsyncContextManager[Visitor]]:
    """Let a person come into rooms: `visit(server, "Ana", "lobby", "coffee")`."""
    return _visit


class Running:
    """
    An example that runs as a process of its own.

    Attributes:
        process: The process.
        line: The first line it printed, or nothing if it could not start.
    """

    def __init__(self, process: asyncio.subprocess.Process, line: str) -> None:
        self.process = process
        self.line = line

    @property
    def http(self) -> str:
        """The address that the line says."""
        return next(word for word in self.line.split() if "://" in word)

    @property
    def ws(self) -> str:
        """The same for WebSockets."""
        return self.http.replace("http", "ws")

    async def ended(self) -> tuple[int | None, str]:
        """Wait for its end; return the exit code and what went to stderr."""
        async with asyncio.timeout(DEADLINE):
            _, stderr = await self.process.communicate()
        return self.process.returncode, stderr.decode()


async def _start(
    *arguments: str, backend: str, stdout: int, start_new_session: bool = False
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, "WSHUB_BACKEND": backend},
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=start_new_session,
    )


@asynccontextmanager
async def _run(
    *arguments: str, backend: str = "memory://", timeout: float = 2 * DEADLINE
) -> AsyncIterator[Running]:
    process = await _start("examples", *arguments, backend=backend, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            yield Running(process, (await process.stdout.readline()).decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def _run_workers(
    example: str, number: int, *, backend: str, timeout: float
) -> AsyncIterator[Running]:
    process = await _start(
        *("uvicorn", f"examples.{example}.app:app"),
        *("--workers", str(number), "--port", str(free_port())),
        backend=backend,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout):
            line = (await process.stderr.readline()).decode()
            for _ in range(number):
                await process.stderr.readuntil(b"Application startup complete.")
            yield Running(process, line)
            process.terminate()
            await process.communicate()
    finally:
        if process.returncode is None:  # pragma: no cover (its workers would outlive it)
            os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


@pytest.fixture
def run_workers() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """Start `uvicorn --workers` with an example, and wait until all of them have started."""
    return _run_workers


@pytest.fixture
def run() -> Callable[..., AbstractAsyncContextManager[Running]]:
    """Start `python -m examples` with some arguments and wait for its line."""
    return _run


class Tabs:
    """
    Tabs of a headless browser, and what went wrong in them.

    Attributes:
        problems: Errors on the console, exceptions, and requests to other places.
        expected: Text of the one kind of error that a test provokes.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.problems: list[str] = []
        self.expected = ""

    async def open(self, url: str, *, beside: Page | None = None, **options: Any) -> Page:
        """Open `url` in a browser of its own, or in a tab `beside` another page."""
        context = beside.context if beside else await self.browser.new_context(**options)
        page = await context.new_page()
        page.on("pageerror", self._note_exception)
        page.on("console", self._note_error)
        page.on("request", self._note_foreign)
        await page.goto(url)
        return page

    def _note_exception(self, error: Error) -> None:
        self.problems.append(str(error))

    def _note_error(self, said: ConsoleMessage) -> None:
        if said.type == "error" and not (self.expected and self.expected in said.text):
            self.problems.append(said.text)

    def _note_foreign(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:")):
            self.problems.append(request.url)


def _find_browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        problem = f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH"
        if os.environ.get("WSHUB_REQUIRE_BROWSER"):
            pytest.fail(problem)
        pytest.skip(problem)
    return found


@pytest.fixture
def find_browser() -> Callable[[], str]:
    """Find the browser; without one, skip the test, or fail it where a browser is required."""
    return _find_browser


@pytest.fixture
async def tabs() -> AsyncIterator[Tabs]:
    """A headless Chromium; at the end, no page may have complained."""
    executable = _find_browser()
    async with AsyncExitStack() as stack:
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        stack.push_async_callback(browser.close)
        opened = Tabs(browser)
        yield opened
        assert opened.problems == []
