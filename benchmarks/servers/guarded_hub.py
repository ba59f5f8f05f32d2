"""wshub with `/private` behind a log-in, and connections limited where they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Depends

from benchmarks.servers.asgi import serve
from benchmarks.servers.hub import Server as HubServer
from wshub.auth import InvalidCredential, Principal, authenticate, bearer_header
from wshub.handshakes import HandshakeLimit
from wshub.uvicorn_http import limit_connections

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractAsyncContextManager

__all__ = ("Server",)

PER_SECOND = 10.0
BURST = 200
"""Connections from one address, as many as the clients that are measured need."""


class Server(HubServer):
    """The same as `hub` at `/ws`; nobody ever comes in at `/private`."""

    limits_connections = True
    limits_handshakes = False

    def __init__(self) -> None:
        super().__init__()
        get_principal = authenticate(bearer_header(), verify=_refuse)
        self._app.add_api_websocket_route(
            "/private", self._handle, dependencies=[Depends(get_principal)]
        )
        if self.limits_handshakes:
            self._app.add_middleware(HandshakeLimit, per_second=PER_SECOND, burst=BURST)

    def serve(self, listener: socket.socket, ws: str) -> AbstractAsyncContextManager[None]:
        """Accept connections during the block."""
        if not self.limits_connections:
            return serve(self._app, listener, ws)
        limited = limit_connections(per_second=PER_SECOND, burst=BURST)
        return serve(self._app, listener, ws, limited)


async def _refuse(token: str) -> Principal:
    raise InvalidCredential(f"{len(token)} characters that nobody was given")
