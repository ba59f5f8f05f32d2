"""Serves an ASGI application with uvicorn, with nothing switched on that is not measured."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

__all__ = ("serve",)


@asynccontextmanager
async def serve(
    app: ASGIApp, listener: socket.socket, ws: str, http: type[asyncio.Protocol] | str = "auto"
) -> AsyncIterator[None]:
    """Serve `app` in the running event loop during the block."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=http,
        ws=ws,
        ws_ping_interval=None,
        log_config=None,
        log_level="error",
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if running.done():
                running.result()  # why it did not start
            await asyncio.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        await running
