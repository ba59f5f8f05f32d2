"""A real uvicorn server for the length of a block."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Self

from wshub.testing._extras import needing
from wshub.testing._runner import TaskRunner, ThreadRunner
from wshub.testing.deadline import DEADLINE, until, wait_until

if TYPE_CHECKING:
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
"""uvicorn's options, as a test wants them: quiet, soon over, without pings of its own."""

LAST_GRACE = 1.0
"""Seconds for what is cancelled because its time to stop was over."""


class LiveServer:
    """
    A real server on 127.0.0.1, running in the block of `live_server()`.

    Attributes:
        port: Where it listens.
        uvicorn: The `uvicorn.Server`, for its state and its configuration.
    """

    def __init__(
        self, app: ASGIApp, *, runner: Runner, port: int, timeout: float, options: dict[str, Any]
    ) -> None:
        with needing("wshub[testing]"):
            import uvicorn

            from wshub.testing._uvicorn import Server

        self.port: int = port
        self.uvicorn: uvicorn.Server = Server(uvicorn.Config(self._call, **options))
        self._app = app
        self._runner = runner
        self._timeout = timeout
        self._lifespan: asyncio.Task[Any] | None = None
        self._failure: BaseException | None = None

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
            await until(self._has_begun, self._timeout)
            self._check_start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.uvicorn.should_exit = True
        try:
            await until(self._has_ended, self._timeout)
        except BaseException:
            self._give_up()
            await until(self._has_ended, LAST_GRACE)
            raise

    def __enter__(self) -> Self:
        if isinstance(self._runner, TaskRunner):
            raise TypeError("`with live_server(…)` needs a loop='asyncio' or 'uvloop' of its own")
        self._begin()
        try:
            wait_until(self._has_begun, self._timeout)
            self._check_start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.uvicorn.should_exit = True
        try:
            wait_until(self._has_ended, self._timeout)
        except BaseException:
            self._give_up()
            wait_until(self._has_ended, LAST_GRACE)
            raise

    def _begin(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._runner.start(self._serve(listener))

    def _has_begun(self) -> bool:
        return self.uvicorn.started or self._runner.ended

    def _has_ended(self) -> bool:
        return self._runner.ended

    def _check_start(self) -> None:
        if not self.uvicorn.started:
            raise RuntimeError("the server did not start: the app failed") from self._failure

    def _give_up(self) -> None:
        self.uvicorn.force_exit = True
        self._runner.cancel()

    async def _serve(self, listener: socket.socket) -> None:
        state = self.uvicorn.server_state
        try:
            await self.uvicorn.serve(sockets=[listener])
        except SystemExit:
            pass  # so uvicorn says that the app did not start, and asyncio would hand it on
        finally:
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
            self._failure = error
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
        timeout: Seconds that the start, and the stop, may take.
        **options: uvicorn's, under the names that `uvicorn.Config` has for them.

    Returns:
        A server to be entered once. On the way out the server stops as on SIGTERM; nothing of it
        is left then, no socket, task or thread.

    Raises:
        OSError: The port is taken; raised when the block is entered, like what follows.
        RuntimeError: The app failed to start.
        TimeoutError: The start or the stop took too long.
        ImportError: uvicorn is missing, or uvloop; raised at once.
    """
    runner = TaskRunner() if loop is None else ThreadRunner(loop)
    return LiveServer(
        app, runner=runner, port=port, timeout=timeout, options={**DEFAULTS, "ws": ws, **options}
    )
