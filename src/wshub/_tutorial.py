"""The surface of the manager in FastAPI's tutorial, which is kept for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub._hub import find_connection
from wshub._lifecycle import open_connection
from wshub.exceptions import NotConnected
from wshub.messages import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.websockets import WebSocket

    from wshub._hub import Hub
    from wshub.auth.principal import Principal
    from wshub.connection import Connection

__all__ = ("TutorialManager",)


class TutorialManager:
    """What the tutorial calls, but for `broadcast()`."""

    _hub: Hub

    @property
    def active_connections(self) -> list[WebSocket]:
        """A snapshot of the registered WebSockets of this process, oldest first."""
        return [connection.websocket for connection in self._hub.registry.find("everyone")]

    async def connect(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        principal: Principal | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> Connection[None]:
        """
        Accept `websocket`, register it and return its connection.

        The handler goes on with `websocket.receive_text()` and the like, and calls
        `disconnect()` when that raises `WebSocketDisconnect`. Prefer `connection()`: it also
        closes with the right code when the handler returns or fails. Takes the arguments of
        `connection()` but `state`, and raises the same errors.
        """
        return await open_connection(
            self._hub,
            websocket,
            user=user,
            principal=principal,
            rooms=rooms,
            subprotocol=subprotocol,
            headers=headers,
            state=None,
        )

    def disconnect(self, websocket: WebSocket) -> None:
        """
        Take `websocket` out of the registry and its rooms; it is not closed.

        Idempotent; never raises, also for a WebSocket that was never registered.
        """
        connection = find_connection(websocket)
        if connection is not None:
            self._hub.forget(connection)

    async def send_personal_message(self, message: object, websocket: WebSocket) -> None:
        """
        Send `message` to one peer and return when it is written, as the tutorial does.

        May be cancelled: a message that still waited for room is then not sent.

        Raises:
            NotConnected: No manager ever accepted `websocket`.
            ConnectionClosed: The connection is over.
            MessageNotEncodable: Nothing was sent.
        """
        connection = find_connection(websocket)
        if connection is None:
            raise NotConnected
        await connection._link.send_and_flush(encode(message))
