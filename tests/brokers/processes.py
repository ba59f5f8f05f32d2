"""Workers as processes of their own: real uvicorn servers around `worker_app`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.ports import free_port
from tests.secrecy import secrets_in
from wshub.testing import connect, wait_until

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractAsyncContextManager

    from wshub.testing import Client

ROOT = Path(__file__).parents[2]


class Server:
    """
    uvicorn with some workers, on a port of its own.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, url: str, options: dict[str, Any], *arguments: str, app: str = "worker_app"
    ) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"tests.brokers.{app}:app"]
        command += ["--port", str(self.port), "--log-level", "info"]
        command += ["--ws", "websockets-sansio", "--timeout-graceful-shutdown", "3", *arguments]
        settings = {"WSHUB_BACKEND": url, "WSHUB_OPTIONS": json.dumps(options)}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop())
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def begins(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, 30, awaited="a worker to answer")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal, if it has not ended yet; no secret is in what it logged."""
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # pragma: no cover (its workers would outlive it)
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        if not self._log.closed:
            self._log.seek(0)
            log = self._log.read().decode()
            self._log.close()
            assert "Started server process" in log
            assert secrets_in(log) == set()

    def connect(self, query: str = "") -> AbstractAsyncContextManager[Client]:
        """Connect a client."""
        return connect(f"ws://127.0.0.1:{self.port}/ws?{query}")

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """Send an HTTP request to one of its workers; return the value of the answer."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}") as http:
            answer = await http.request(method, path, **options)
        return answer.raise_for_status().json()

    async def broadcast(self, *texts: str, **query: str) -> None:
        """Let one of its workers broadcast."""
        await self.request("POST", "/broadcast", json=texts, params=query)

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/state").is_success
        except httpx.TransportError:
            return False


@contextmanager
def running(
    url: str, options: dict[str, Any], *arguments: str, number: int = 1, app: str = "worker_app"
) -> Generator[list[Server], None, None]:
    """Run so many servers for the length of a block."""
    servers = [Server(url, options, *arguments, app=app) for _ in range(number)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            server.begins()
        yield servers
