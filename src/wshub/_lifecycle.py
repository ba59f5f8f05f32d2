"""From the handshake to the last frame."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect, WebSocketState

from wshub._hub import find_connection
from wshub._names import check_room_name, check_user_id
from wshub.connection import Connection
from wshub.exceptions import AlreadyConnected, CloseCode, ConnectionClosed, check_close_code

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from starlette.websockets import WebSocket

    from wshub._hub import Hub

__all__ = ("close_connections", "manage_connection", "open_connection")

StateT = TypeVar("StateT")

logger = logging.getLogger("wshub")

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that a shutdown gives connections to close, and again tasks to end."""


async def open_connection(
    hub: Hub,
    websocket: WebSocket,
    *,
    user: str | None,
    rooms: Iterable[str],
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
    state: StateT,
) -> Connection[StateT]:
    """Accept `websocket` and register it; names are checked before anything is sent."""
    if isinstance(rooms, str):
        raise TypeError("rooms is a collection of names; pass rooms=[name]")
    names = [check_room_name(room) for room in rooms]
    if user is not None:
        check_user_id(user)
    await _accept(websocket, subprotocol, headers)
    connection = Connection(websocket, hub, user=user, state=state)
    hub.register(connection)
    connection._link.start_reading()
    for name in names:
        await connection.join(name)
    return connection


@asynccontextmanager
async def manage_connection(
    hub: Hub,
    websocket: WebSocket,
    *,
    user: str | None,
    rooms: Iterable[str],
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
    state: StateT,
) -> AsyncGenerator[Connection[StateT], None]:
    """Keep a connection for the length of the block and close it with the code that fits."""
    connection = await open_connection(
        hub,
        websocket,
        user=user,
        rooms=rooms,
        subprotocol=subprotocol,
        headers=headers,
        state=state,
    )
    code, reason = int(CloseCode.NORMAL_CLOSURE), ""
    try:
        yield connection
    except BaseException as error:
        if isinstance(error, WebSocketDisconnect) and connection.closed is not None:
            return
        code, reason = _closing_of(error)
        if code == CloseCode.INTERNAL_ERROR:
            logger.error("the handler of %r failed: %r; closing with 1011", connection, error)
        raise
    finally:
        await connection._link.finish(code, reason)


async def close_connections(hub: Hub) -> None:
    """Close every connection with 1012, then end every task; both within a deadline."""
    closings = [
        hub.tasks.start(
            connection.close(CloseCode.SERVICE_RESTART, "shutting down"), name="wshub shutdown"
        )
        for connection in hub.registry.find("everyone")
    ]
    if closings:
        await asyncio.wait(closings, timeout=SHUTDOWN_TIMEOUT)
    await hub.tasks.stop(timeout=SHUTDOWN_TIMEOUT)


async def _accept(
    websocket: WebSocket,
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
) -> None:
    if find_connection(websocket) is not None:
        raise AlreadyConnected("this WebSocket is registered already; connect it once")
    if websocket.client_state is WebSocketState.DISCONNECTED:
        raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "", "peer")
    if websocket.application_state is WebSocketState.DISCONNECTED:
        raise AlreadyConnected("this WebSocket was closed or refused before it was connected")
    if websocket.application_state is WebSocketState.CONNECTED:
        if subprotocol is not None or headers is not None:
            raise AlreadyConnected(
                "this WebSocket was accepted before, too early for subprotocol= and headers=; "
                "leave `await websocket.accept()` to the manager"
            )
        return
    try:
        await websocket.accept(subprotocol=subprotocol, headers=headers)
    except (OSError, RuntimeError) as error:  # what servers raise for a peer that has gone
        raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "", "peer") from error


def _closing_of(error: BaseException) -> tuple[int, str]:
    """Return the code and reason with which an error in the handler closes its connection."""
    if isinstance(error, WebSocketException):
        try:
            return check_close_code(error.code), error.reason
        except ValueError:
            pass
    elif not isinstance(error, Exception):
        return CloseCode.GOING_AWAY, ""
    return CloseCode.INTERNAL_ERROR, "internal error"
