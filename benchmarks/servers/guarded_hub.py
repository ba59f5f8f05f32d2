"""wshub with `/private` behind a log-in and a limit on handshakes."""

from __future__ import annotations

from fastapi import Depends

from benchmarks.servers.hub import Server as HubServer
from wshub import ConnectionManager, Limits
from wshub.auth import InvalidCredential, Principal, authenticate, bearer_header
from wshub.handshakes import HandshakeLimit

__all__ = ("Server",)


class Server(HubServer):
    """The same as `hub` at `/ws`; nobody ever comes in at `/private`."""

    limited = True

    def __init__(self) -> None:
        super().__init__()
        self._manager = ConnectionManager(limits=Limits(connections_per_address=1000))
        get_principal = authenticate(bearer_header(), verify=_refuse)
        self._app.add_api_websocket_route(
            "/private", self._handle, dependencies=[Depends(get_principal)]
        )
        if self.limited:
            self._app.add_middleware(HandshakeLimit, per_second=5, burst=200)


async def _refuse(token: str) -> Principal:
    raise InvalidCredential(f"{len(token)} characters that nobody was given")
