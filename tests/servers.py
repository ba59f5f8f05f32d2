"""Servers other than uvicorn, each with a chat of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import hypercorn.asyncio
from hypercorn.config import Config

from tests.chat_app import create_app
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

ROOT = Path(__file__).parents[1]


class ChatServer:
    """
    A chat that runs somewhere.

    Attributes:
        ws: Base URL for WebSockets.
    """

    def __init__(self, port: int, http: httpx.AsyncClient) -> None:
        self.ws = f"ws://127.0.0.1:{port}"
        self._http = http

    async def post(self, path: str) -> None:
        (await self._http.post(path)).raise_for_status()

    async def state(self) -> dict[str, Any]:
        """Return what `GET /state` says."""
        state: dict[str, Any] = (await self._http.get("/state")).raise_for_status().json()
        return state

    async def reaches(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until the state fulfils `condition`; return it."""
        reached = False
        async with asyncio.timeout(DEADLINE):
            while not reached:
                await asyncio.sleep(0.01)
                state = await self.state()
                reached = bool(condition(state))
        return state

    async def begins(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    await self.state()
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    return


@asynccontextmanager
async def serve_with_hypercorn() -> AsyncGenerator[ChatServer, None]:
    """Run hypercorn in this event loop."""
    config, stop = Config(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 1
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(create_app(), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            server = ChatServer(port, http)
            await server.begins()
            yield server
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE):
            await serving


@asynccontextmanager
async def serve_with_granian() -> AsyncGenerator[ChatServer, None]:
    """Run granian, which takes a process of its own, with the same kind of event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    loop = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    options = {"interface": "asgi", "host": "127.0.0.1", "port": port, "loop": loop}
    command = [sys.executable, "-m", "granian", "--factory", "tests.chat_app:create_app"]
    command += [f"--{name}={value}" for name, value in {**options, "log-level": "warning"}.items()]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, start_new_session=True)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            server = ChatServer(port, http)
            await server.begins()
            yield server
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(DEADLINE):
                await process.wait()
        except TimeoutError:  # pragma: no cover (its workers would outlive it)
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise


SERVERS = {"hypercorn": serve_with_hypercorn, "granian": serve_with_granian}
