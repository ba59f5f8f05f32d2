"""Each way to start a server with the frame sink, and what is said where it cannot be had."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import unix_connect

import wshub
from tests.uvicorn.served_app import MESSAGES, SIZE
from wshub import UnsupportedServer
from wshub.testing import Opcode, StalledClient, until, wait_until
from wshub.testing.deadline import DEADLINE
from wshub.uvicorn import FanoutProtocol
from wshub.uvicorn._deflate import window_bits_of
from wshub.uvicorn._guard import _BUILT_ON, LEAST_UVICORN, check_uvicorn
from wshub.uvicorn._sink import _Protocol as _SinkProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
APP = "tests.uvicorn.served_app"
UVICORN = ("-m", "uvicorn", f"{APP}:app", "--ws", "wshub.uvicorn:FanoutProtocol", "--port", "0")
GUNICORN = (
    *("-m", "gunicorn", f"{APP}:app", "--bind", "127.0.0.1:0"),
    *("--worker-class", f"{APP}.FanoutWorker"),
)


class Way(NamedTuple):
    """
    How a server is started.

    Attributes:
        arguments: Of Python.
        workers: Processes that serve.
    """

    arguments: tuple[str, ...]
    workers: int = 1


WAYS = {
    "uvicorn on asyncio": Way((*UVICORN, "--loop", "asyncio")),
    "uvicorn on uvloop": Way((*UVICORN, "--loop", "uvloop")),
    "uvicorn with workers on asyncio": Way((*UVICORN, "--workers", "2", "--loop", "asyncio"), 2),
    "uvicorn with workers on uvloop": Way((*UVICORN, "--workers", "2", "--loop", "uvloop"), 2),
    "uvicorn.run": Way(("-m", APP)),
    "gunicorn": Way(GUNICORN),
    "gunicorn with workers": Way((*GUNICORN, "--workers", "2"), 2),
}


class Process:
    """A server that runs as a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, workers: int) -> None:
        self.process = process
        self._log = log
        self._workers = workers

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it listens."""
        found = re.search(r"(?:running on|Listening at:) http://(127\.0\.0\.1:\d+)", self.log)
        assert found
        return f"ws://{found[1]}/ws"

    @property
    def has_started(self) -> bool:
        """Whether all its workers serve."""
        assert self.process.poll() is None, self.log
        return (
            self.log.count("Application startup complete") == self._workers
            and re.search("running on|Listening at:", self.log) is not None
        )

    @property
    def has_ended(self) -> bool:
        """Whether it has, with all its workers."""
        return self.process.poll() is not None


@contextmanager
def run(way: Way, log: Path) -> Iterator[Process]:
    """Start a server; at the end nothing is left of it."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *way.arguments],
            cwd=ROOT,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Process(process, log, way.workers)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("name", WAYS)
def test_it_serves_and_stops(name: str, tmp_path: Path) -> None:
    """Frames go past the transport; at SIGTERM all that waits arrives before 1012."""
    way = WAYS[name]
    with run(way, tmp_path / "log") as server:
        wait_until(lambda: server.has_started, timeout=30)
        asyncio.run(_be_served(server, way.workers))
        for line in server.log.splitlines():
            if line.endswith(" wait"):
                assert int(line.split()[0]) > MESSAGES / 4
    assert "Traceback" not in server.log
    assert server.log.count(" wait\n") == way.workers


async def _be_served(server: Process, workers: int) -> None:
    async with AsyncExitStack() as stack:
        clients = dict[int, StalledClient]()
        while len(clients) < workers:
            client = StalledClient(server.url)
            await stack.enter_async_context(client)
            for _ in range(2):  # with some event loops what comes in the first turn is not typical
                await client.send_frame(Opcode.TEXT, b"how?")
                told = json.loads((await client.read_frame()).payload)
            process = told.pop("process")
            assert told == {"past the transport": True, "without delay": True}
            clients.setdefault(process, client)
        for client in clients.values():
            await client.send_frame(Opcode.TEXT)
        await until(lambda: server.log.count(" wait\n") == workers)
        server.process.terminate()
        for client in clients.values():
            for number in range(MESSAGES):
                assert (await client.read_frame()).payload == b"%04d" % number * (SIZE // 4)
            close = await client.read_frame()
            assert (close.opcode, close.payload) == (Opcode.CLOSE, (1012).to_bytes(2))
            assert await client.read(1) == b""
    await until(lambda: server.has_ended)
    assert server.process.returncode in {0, -signal.SIGTERM}


def test_it_serves_on_a_unix_domain_socket(tmp_path: Path) -> None:
    """As behind a proxy on the same machine."""
    path = tmp_path / "socket"
    with run(Way((*UVICORN[:-2], "--uds", str(path))), tmp_path / "log") as server:
        wait_until(lambda: server.has_started, timeout=30)
        with unix_connect(str(path), "ws://localhost/ws", compression=None) as client:
            for _ in range(2):
                client.send("how?")
                told = json.loads(client.recv(DEADLINE))
            assert told["past the transport"]
            server.process.terminate()
            with pytest.raises(ConnectionClosedError) as closed:
                client.recv(DEADLINE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        wait_until(lambda: server.has_ended)


# --- where it cannot be had


def test_what_is_installed_will_do() -> None:
    """The oldest release that is supported, and the newest."""
    check_uvicorn()
    with pytest.MonkeyPatch.context() as patch:
        for version in (
            LEAST_UVICORN,
            f"{LEAST_UVICORN}.post1",
            "0.999",
            "1.0",
            "1.0rc1",
            "10.0.0",
        ):
            patch.setattr("wshub.uvicorn._guard.version", lambda _, version=version: version)
            check_uvicorn()


@pytest.mark.parametrize("version", ["0.51.0", "0.52.0", "0.9", "0.52", "0.52.1rc1"])
def test_an_old_uvicorn_is_named(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version, and with what would do."""
    monkeypatch.setattr("wshub.uvicorn._guard.version", lambda _: version)
    with pytest.raises(UnsupportedServer, match=re.escape(LEAST_UVICORN)) as raised:
        check_uvicorn()
    assert version in str(raised.value)
    assert isinstance(raised.value, ImportError)


def lacking(name: str, patch: pytest.MonkeyPatch) -> str:
    """Let uvicorn's protocol be without a method, or never set an attribute; return its name."""
    path, _, last = f"protocol.{name}".rpartition(".")
    set_up = WebSocketsSansIOProtocol.__init__

    def set_up_without(protocol: WebSocketsSansIOProtocol, *arguments: Any) -> None:
        set_up(protocol, *arguments)
        owner = attrgetter(path)(SimpleNamespace(protocol=protocol))
        if last in vars(owner):
            delattr(owner, last)
        else:
            patch.delattr(next(kind for kind in type(owner).mro() if last in vars(kind)), last)

    patch.setattr(WebSocketsSansIOProtocol, "__init__", set_up_without)
    return last


@pytest.mark.parametrize("name", _BUILT_ON)
def test_a_uvicorn_that_lacks_what_is_built_on_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release to come may have renamed something: that is said, not found out by clients."""
    with monkeypatch.context() as patch:
        last = lacking(name, patch)
        with pytest.raises(UnsupportedServer, match=f"a newer wshub.*{last}"):
            check_uvicorn()
    check_uvicorn()


def test_a_uvicorn_whose_protocol_is_made_otherwise_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With other arguments, say: it would fail at the first connection."""
    monkeypatch.setattr(WebSocketsSansIOProtocol, "__init__", lambda _: None)
    with pytest.raises(UnsupportedServer, match=r"a newer wshub.*argument"):
        check_uvicorn()


def test_a_uvicorn_without_that_protocol_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if the module has gone."""
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.websockets.websockets_sansio_impl", None)
    with pytest.raises(UnsupportedServer, match="a newer wshub"):
        check_uvicorn()


@pytest.mark.parametrize("package", ["uvicorn", "websockets"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install 'wshub[uvicorn]'` brings both."""
    found = importlib.metadata.version

    def version(name: str) -> str:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr("wshub.uvicorn._guard.version", version)
    with pytest.raises(ImportError, match=rf"needs {package}; pip install 'wshub\[uvicorn\]'"):
        check_uvicorn()


def test_importing_it_checks() -> None:
    """So that `uvicorn --ws wshub.uvicorn:FanoutProtocol` says it and does not start."""
    program = (
        "import importlib.metadata as m; m.version = lambda name: '0.40.0'; import wshub.uvicorn"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("wshub.exceptions.UnsupportedServer: ")


def test_all_that_is_built_on_is_checked() -> None:
    """What the protocol overrides, and what it and its sink name of uvicorn's, and nothing else."""
    overridden = {
        name
        for name, value in vars(FanoutProtocol).items()
        if callable(value) and not name.startswith("__") and hasattr(WebSocketsSansIOProtocol, name)
    }
    overridden -= set(dir(asyncio.Protocol))
    assert overridden | names_in_protocol() | set(_SinkProtocol.__annotations__) == set(_BUILT_ON)


def names_in_protocol() -> set[str]:
    """Return what is named of the protocol itself, its connection and its configuration."""
    names = set[str]()
    for function in (FanoutProtocol, window_bits_of):
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node).removeprefix("self.").replace("connection.", "conn.")
                if re.fullmatch(r"[a-z]\w*|(conn|config)\.\w+", name):
                    names.add(name)
    return names - {"conn", "config"}


def test_the_rest_of_the_package_does_without() -> None:
    """Nothing outside `wshub.uvicorn` imports it, also not for a type."""
    source = Path(wshub.__file__).parent
    for path in source.rglob("*.py"):
        if path.parent == source / "uvicorn":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("wshub.uvicorn"), path
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("wshub.uvicorn") for alias in node.names), path
