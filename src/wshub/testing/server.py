"""A real uvicorn server for the length of a block."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from wshub.testing._extras import needing
from wshub.testing._runner import TaskRunner, ThreadRunner
from wshub.testing.deadline import DEADLINE, until, wait_until

if TYPE_CHECKING:
    from types import TracebackType

    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send

    from wshub.testing._runner import EventLoop, Runner

__all__ = ("LiveServer", "live_server")

DEFAULTS: dict[str, Any] = {
    "interface": "asgi3",
    "log_config": None,
    "timeout_graceful_shutdown": 2,
    "ws_ping_interval": None,
}
"""uvicorn's options as a test wants them: quiet, soon over, without pings of its own."""

LAST_GRACE = 1.0
"""Seconds for what is cancelled because its time to end was over."""


class LiveServer:
    """
    A real server on 127.0.0.1, running in the block of `live_server()`.

    Attributes:
        port: Where it listens.
        uvicorn: The `uvicorn.Server`, for its state and its configuration.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        runner: Runner,
        port: int,
        send_buffer: int | None,
        timeout: float,
        options: dict[str, Any],
    ) -> None:
        with needing("wshub[testing]"):
            import uvicorn

            from wshub.testing._uvicorn import Server

        self.port: int = port
        self.uvicorn: uvicorn.Server = Server(uvicorn.Config(self._call, **options))
        self._app = app
        self._begun = False
        self._runner = runner
        self._send_buffer = send_buffer
        self._timeout = timeout
        self._lifespan: asyncio.Task[Any] | None = None
        self._lifespan_error: BaseException | None = None
        self._error: Exception | None = None

    @property
    def http(self) -> str:
        """Base URL for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Base URL for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections the server itself has open, whatever the app thinks of them."""
        return len(self.uvicorn.server_state.connections)

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await until(self._has_begun, self._timeout, awaited="the app to start")
            self._check_start()
        except BaseException:
            self._runner.cancel()
            with suppress(TimeoutError):
                await until(self._has_ended, 2 * LAST_GRACE)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.uvicorn.should_exit = True
        try:
            await until(self._has_ended, self._timeout)
        except BaseException as late:
            failure = self._give_up(late)
            with suppress(TimeoutError):
                await until(self._has_ended, 2 * LAST_GRACE)
            raise failure from error
        self._check_end(error)

    def __enter__(self) -> Self:
        if isinstance(self._runner, TaskRunner):
            raise TypeError("`with live_server(…)` needs loop='asyncio' or loop='uvloop'")
        self._begin()
        try:
            wait_until(self._has_begun, self._timeout, awaited="the app to start")
            self._check_start()
        except BaseException:
            self._runner.cancel()
            with suppress(TimeoutError):
                wait_until(self._has_ended, 2 * LAST_GRACE)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.uvicorn.should_exit = True
        try:
            wait_until(self._has_ended, self._timeout)
        except BaseException as late:
            failure = self._give_up(late)
            with suppress(TimeoutError):
                wait_until(self._has_ended, 2 * LAST_GRACE)
            raise failure from error
        self._check_end(error)

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("a live server runs once; call live_server() again for another")
        self._begun = True
        # asyncio turns Nagle's algorithm off, as for `uvicorn main:app`, only where it finds a
        # protocol, which a socket finds out when it is made from a descriptor.
        made = socket.create_server(("127.0.0.1", self.port))
        listener = socket.socket(fileno=made.detach())
        if self._send_buffer is not None:  # what a listening socket has, its connections get
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.port = listener.getsockname()[1]
        self._runner.start(self._serve(listener))

    def _has_begun(self) -> bool:
        return self.uvicorn.started or self._runner.ended

    def _has_ended(self) -> bool:
        return self._runner.ended

    def _check_start(self) -> None:
        if not self.uvicorn.started:
            error = self._error or self._lifespan_error
            raise RuntimeError(
                f"the server did not start: {error or 'its lifespan failed'}"
            ) from error

    def _check_end(self, error: BaseException | None) -> None:
        if self.uvicorn.started and self._error is not None:
            raise RuntimeError(f"the server failed: {self._error}") from error or self._error

    def _give_up(self, error: BaseException) -> BaseException:
        """Cancel all that is left; return what to raise instead of `error`."""
        tasks = len(self.uvicorn.server_state.tasks)
        self._runner.cancel()
        if not isinstance(error, TimeoutError):
            return error
        return TimeoutError(
            f"the server did not stop within {self._timeout:g} seconds; left were "
            f"{self.connections} connections and {tasks} handlers"
        )

    async def _serve(self, listener: socket.socket) -> None:
        state = self.uvicorn.server_state
        try:
            await self.uvicorn.serve(sockets=[listener])
        except SystemExit:
            pass  # uvicorn's way to say that the lifespan failed; it would end the event loop
        except Exception as error:
            self._error = error
        finally:
            for server in getattr(self.uvicorn, "servers", ()):  # what it has once it has started
                server.close()
            listener.close()
            for connection in state.connections:
                connection.transport.abort()
            await _end({*state.tasks, *([self._lifespan] if self._lifespan else [])})

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        # uvicorn keeps neither the task of the lifespan nor the error that ends it.
        self._lifespan = asyncio.current_task()
        try:
            await self._app(scope, receive, send)
        except BaseException as error:
            self._lifespan_error = error
            raise


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_GRACE)


def live_server(
    app: ASGIApp,
    *,
    ws: str = "websockets-sansio",
    loop: EventLoop | None = None,
    port: int = 0,
    send_buffer: int | None = None,
    timeout: float = DEADLINE,
    **options: Any,
) -> LiveServer:
    """
    Serve `app` on 127.0.0.1 for the length of an `async with` block.

    Args:
        app: Any ASGI app.
        ws: uvicorn's WebSocket implementation: `"websockets-sansio"`, `"wsproto"` or
            `"websockets"`.
        loop: None runs the server in the event loop of the test. `"asyncio"` and `"uvloop"` run
            it in a thread with an event loop of its own, also for a plain `with`.
        port: 0 takes a free one.
        send_buffer: Bytes that the system takes from the server for a client that does not read;
            None leaves that to the system, which may take megabytes.
        timeout: Seconds that the start, and the stop, may take.
        **options: uvicorn's, under the names that `uvicorn.Config` has for them.

    Returns:
        A server to be entered once. On the way out it stops as on SIGTERM; nothing of it is left
        then, no socket, task or thread.

    Raises:
        OSError: The port is taken. Raised on the way in, like what follows.
        RuntimeError: The app failed to start.
        TimeoutError: The start or the stop took too long.
        ImportError: uvicorn is missing, or uvloop. Raised at once.
    """
    runner = TaskRunner() if loop is None else ThreadRunner(loop)
    return LiveServer(
        app,
        runner=runner,
        port=port,
        send_buffer=send_buffer,
        timeout=timeout,
        options={**DEFAULTS, "ws": ws, **options},
    )
