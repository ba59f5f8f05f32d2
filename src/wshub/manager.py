"""The manager: registers connections and sends to many of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, overload

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect, WebSocketState

from wshub._hub import Hub
from wshub._names import check_room_name, check_user_id
from wshub._outbox import OutboxOptions
from wshub.backends.memory import MemoryBackend
from wshub.connection import Connection, find_connection
from wshub.exceptions import (
    AlreadyConnected,
    CloseCode,
    ConnectionClosed,
    NotConnected,
    check_close_code,
    cut_reason,
)
from wshub.messages import Dismissal
from wshub.rooms import Room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from starlette.websockets import WebSocket

    from wshub.backends.base import Backend
    from wshub.events import Statistics

__all__ = ("ConnectionManager",)

StateT = TypeVar("StateT")

logger = logging.getLogger("wshub")

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the end of `lifespan` gives connections to close, and again tasks to end."""


class ConnectionManager:
    """
    Registers connections and sends to one, to a room, to a user or to all of them.

    It needs neither a start nor options. One manager serves one event loop, to which all its
    methods belong.

    Args:
        backend: Carries messages between workers; by default `MemoryBackend()`, which reaches
            this process only.
        outbox: Bounds of the queue in front of each peer.
        read_ahead: Messages that are read from a peer before its handler takes them; together
            they are at most `outbox.max_bytes` long.

    Raises:
        ValueError: `read_ahead` is less than 1.
    """

    def __init__(
        self,
        *,
        backend: Backend | None = None,
        outbox: OutboxOptions | None = None,
        read_ahead: int = 64,
    ) -> None:
        if read_ahead < 1:
            message = f"read_ahead must be at least 1 message, not {read_ahead}"
            raise ValueError(message)
        self._hub = Hub(backend or MemoryBackend(), outbox or OutboxOptions(), read_ahead)

    @property
    def active_connections(self) -> list[WebSocket]:
        """A snapshot of the registered WebSockets of this process, oldest first."""
        return [connection.websocket for connection in self._hub.registry.find("everyone")]

    async def connect(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        state: object = None,
    ) -> Connection:
        """
        Accept `websocket`, register it and return its connection.

        The handler goes on with `websocket.receive_text()` and the like, and calls
        `disconnect()` when that raises `WebSocketDisconnect`. Prefer `connection()`: it also
        closes with the right code when the handler returns or fails. Takes the arguments of
        `connection()` and raises the same errors.
        """
        connection = await self._open(websocket, user, rooms, subprotocol, headers, state)
        handler = asyncio.current_task()
        if handler is not None:
            # A handler that fails before it calls disconnect() must not leave a ghost behind.
            handler.add_done_callback(lambda _: connection._link.release())
        return connection

    def disconnect(self, websocket: WebSocket) -> None:
        """
        Take `websocket` out of the registry and its rooms; it is not closed.

        Idempotent; never raises, also for a WebSocket that was never registered.
        """
        connection = find_connection(websocket)
        if connection is not None:
            self._hub.forget(connection)

    @overload
    def connection(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        state: StateT,
    ) -> AbstractAsyncContextManager[Connection[StateT]]: ...

    @overload
    def connection(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        state: None = None,
    ) -> AbstractAsyncContextManager[Connection[None]]: ...

    def connection(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        state: object = None,
    ) -> AbstractAsyncContextManager[Connection]:
        """
        Accept `websocket` and keep it registered inside an `async with` block.

        On the way out the connection leaves its rooms and closes: with 1000 on return, with the
        exception's own code on `WebSocketException`, with 1011 on any other error (logged and
        raised on), with 1001 on cancellation. That the peer left is no error: the block then
        ends quietly and the code after it runs.

        Args:
            websocket: Not accepted yet, or accepted by the app itself.
            user: Id of the user behind it, for `send_to_user()` and `disconnect_user()`.
            rooms: Names of rooms to join at once.
            subprotocol: The one to accept of `websocket.scope["subprotocols"]`.
            headers: Extra headers for the handshake response.
            state: The app's own object, kept as `connection.state`.

        Raises:
            ConnectionClosed: The peer left before it was accepted.
            AlreadyConnected: The WebSocket is registered already, or was accepted before and
                `subprotocol` or `headers` come too late.
            InvalidRoomName: A room name is empty, too long or not printable. Not accepted then.
            InvalidUserId: The same of `user`.
        """
        return self._manage(websocket, user, rooms, subprotocol, headers, state)

    def room(self, name: str) -> Room:
        """
        Return the room called `name`. It need not have members.

        Raises:
            InvalidRoomName: The name is empty, too long or not printable.
        """
        return Room(check_room_name(name), self._hub)

    async def send_personal_message(self, message: object, websocket: WebSocket) -> None:
        """
        Send `message` to one peer; the same as `Connection.send()`.

        Raises:
            NotConnected: No manager ever accepted `websocket`.
            ConnectionClosed: The connection is over.
            MessageNotEncodable: Nothing was sent.
        """
        connection = find_connection(websocket)
        if connection is None:
            raise NotConnected
        await connection.send(message)

    async def broadcast(
        self,
        message: object,
        *,
        room: str | None = None,
        exclude: Iterable[Connection | WebSocket | str] = (),
    ) -> None:
        """
        Send `message` to the members of `room`, or to everyone.

        Encoded once. Returns when the backend has taken it, without waiting for a recipient, and
        never raises because of one. All recipients see all broadcasts in the same order.
        Cancelling while earlier broadcasts are still being delivered sends nothing; later it
        changes nothing.

        Args:
            message: str → text frame, bytes-like → binary frame, anything else → JSON text.
            room: Its name. A room without members reaches nobody.
            exclude: Connections, WebSockets or connection ids that do not get it.

        Raises:
            MessageNotEncodable: Nothing was sent to anyone.
            InvalidRoomName: The name is empty, too long or not printable.
            BackendUnavailable: The backend cannot take it now. Nothing was sent.
            PayloadTooLarge: It is over the backend's limit. Nothing was sent.
        """
        if room is None:
            await self._hub.publish("everyone", "", message, exclude)
        else:
            await self._hub.publish("room", check_room_name(room), message, exclude)

    async def send_to_user(self, user: str, message: object) -> None:
        """
        Send `message` to every connection of `user`; nobody, if there is none.

        Waits and raises as `broadcast()` does, with InvalidUserId for a bad `user`.
        """
        await self._hub.publish("user", check_user_id(user), message)

    async def disconnect_user(
        self, user: str, *, code: int = CloseCode.POLICY_VIOLATION, reason: str = ""
    ) -> None:
        """
        Close every connection of `user`, after what was sent to it before.

        Returns when the backend has taken the order; the closing goes on in the background.

        Args:
            user: Id of the user; one without connections is fine.
            code: Close code.
            reason: For the peer to read; cut to 123 bytes of UTF-8.

        Raises:
            ValueError: The code cannot be sent (RFC 6455 §7.4.1).
            InvalidUserId: The id is empty, too long or not printable.
        """
        order = Dismissal(check_user_id(user), check_close_code(code), cut_reason(reason))
        await self._hub.backend.publish(order)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002
        """
        Start the backend, and at the end close every connection with 1012 and stop it.

        Pass it as `FastAPI(lifespan=manager.lifespan)`, or enter it inside a lifespan of your
        own. The default backend works without it.
        """
        await self._hub.backend.start()
        try:
            yield
        finally:
            await self._close_all()
            await self._hub.backend.stop()

    def statistics(self) -> Statistics:
        """Return the figures of this manager in this process."""
        return self._hub.statistics()

    async def _open(
        self,
        websocket: WebSocket,
        user: str | None,
        rooms: Iterable[str],
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
        state: StateT,
    ) -> Connection[StateT]:
        if isinstance(rooms, str):
            message = "rooms is a collection of names; pass rooms=[name]"
            raise TypeError(message)
        names = [check_room_name(room) for room in rooms]
        if user is not None:
            check_user_id(user)
        await _accept(websocket, subprotocol, headers)
        connection = Connection(websocket, self._hub, user=user, state=state)
        self._hub.register(connection)
        for name in names:
            await connection.join(name)
        return connection

    @asynccontextmanager
    async def _manage(
        self,
        websocket: WebSocket,
        user: str | None,
        rooms: Iterable[str],
        subprotocol: str | None,
        headers: Iterable[tuple[bytes, bytes]] | None,
        state: StateT,
    ) -> AsyncIterator[Connection[StateT]]:
        connection = await self._open(websocket, user, rooms, subprotocol, headers, state)
        code, reason = int(CloseCode.NORMAL_CLOSURE), ""
        try:
            yield connection
        except WebSocketDisconnect:
            if connection.closed is None:
                # It tells of some other connection, which is no reason to end this one quietly.
                code, reason = CloseCode.INTERNAL_ERROR, "internal error"
                raise
        except WebSocketException as error:
            code, reason = _closing_of(error)
            raise
        except Exception:
            logger.error("the handler of %r failed; closing with 1011", connection)
            code, reason = CloseCode.INTERNAL_ERROR, "internal error"
            raise
        except BaseException:
            code, reason = CloseCode.GOING_AWAY, ""
            raise
        finally:
            await connection._link.finish(code, reason)

    async def _close_all(self) -> None:
        connections = self._hub.registry.find("everyone")
        for connection in connections:
            connection._link.start_closing(CloseCode.SERVICE_RESTART, "shutting down")
        closings = [connection.close() for connection in connections]
        async with asyncio.timeout(SHUTDOWN_TIMEOUT):
            await asyncio.gather(*closings)
        await self._hub.tasks.stop(timeout=SHUTDOWN_TIMEOUT)


async def _accept(
    websocket: WebSocket,
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
) -> None:
    if find_connection(websocket) is not None:
        raise AlreadyConnected("this WebSocket is registered already; connect it once")
    if websocket.client_state is WebSocketState.DISCONNECTED:
        raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "", "peer")
    if websocket.application_state is WebSocketState.CONNECTED:
        if subprotocol is not None or headers is not None:
            raise AlreadyConnected(
                "this WebSocket was accepted before, too early for subprotocol= and headers=; "
                "leave `await websocket.accept()` to the manager"
            )
        return
    try:
        await websocket.accept(subprotocol=subprotocol, headers=headers)
    except OSError as error:
        raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "", "peer") from error


def _closing_of(error: WebSocketException) -> tuple[int, str]:
    try:
        return check_close_code(error.code), error.reason
    except ValueError as problem:
        logger.error("closing with 1011: %s", problem)
        return CloseCode.INTERNAL_ERROR, "internal error"
