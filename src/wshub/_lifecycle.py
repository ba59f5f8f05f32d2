"""From the handshake to the last frame."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocketDisconnect, WebSocketState

from wshub._drain import say_goodbye
from wshub._hub import find_connection
from wshub._names import check_room_name, check_user_id
from wshub.auth.refusal import AUTHENTICATED_AT
from wshub.auth.sources import select_subprotocol
from wshub.connection import Connection
from wshub.exceptions import (
    AlreadyConnected,
    CloseCode,
    ConnectionClosed,
    Rejection,
    check_close_code,
    unauthorized,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from starlette.websockets import WebSocket

    from wshub._hub import Hub
    from wshub.auth.principal import Principal

__all__ = ("manage_connection", "open_connection")

StateT = TypeVar("StateT")

logger = logging.getLogger("wshub")

REFUSAL_RETRY_AFTER = 5.0
"""Seconds after which a client that comes during a shutdown is told to come back."""


async def open_connection(
    hub: Hub,
    websocket: WebSocket,
    *,
    user: str | None,
    principal: Principal | None,
    rooms: Iterable[str],
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
    state: StateT,
) -> Connection[StateT]:
    """Accept `websocket` and register it; names are checked before anything is sent."""
    if isinstance(rooms, str):
        raise TypeError("rooms is a collection of names; pass rooms=[name]")
    names = [check_room_name(room) for room in rooms]
    authenticated_at: float = websocket.scope.get(AUTHENTICATED_AT, time.monotonic())
    user = _check_user(user, principal)
    for name in names:
        await hub.authorize("join", principal, user, name)
    if hub.stopping:
        reason = "shutting down"
        raise Rejection(CloseCode.SERVICE_RESTART, reason, retry_after=REFUSAL_RETRY_AFTER)
    seat = hub.admit(websocket, user, len(set(names)))
    try:
        accepted = await _accept(websocket, subprotocol, headers)
        connection = Connection(
            websocket, hub, user=user, principal=principal, state=state, seat=seat
        )
    except BaseException:
        hub.admission.release(seat)
        raise
    hub.register(connection)
    if not accepted:
        connection._link.see_disconnect({"code": CloseCode.ABNORMAL_CLOSURE})
    connection._link.start()
    hub.begin_tenure(connection, authenticated_at)
    try:
        await hub.enter(connection, names)
    except BaseException:  # cancelled, as there is no block yet that would close it
        await connection._link.finish(CloseCode.GOING_AWAY, "")
        raise
    hub.turn_away(connection, authenticated_at)  # who was dismissed before we would be told
    if hub.stopping:
        say_goodbye(connection)  # everyone else was told while this one was being accepted
    return connection


@asynccontextmanager
async def manage_connection(
    hub: Hub,
    websocket: WebSocket,
    *,
    user: str | None,
    principal: Principal | None,
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
        principal=principal,
        rooms=rooms,
        subprotocol=subprotocol,
        headers=headers,
        state=state,
    )
    code, reason = int(CloseCode.NORMAL_CLOSURE), ""
    handler = connection._link.bind_handler()
    try:
        yield connection
    except BaseException as error:
        handler.settle()
        errors = _leaves(error)
        if connection.closed is not None and all(map(_tells_of_the_end, errors)):
            return
        code, reason = _closing_of(errors)
        if code == CloseCode.INTERNAL_ERROR:
            # The text of an error may have a message in it; whoever catches it next shows more.
            kinds = ", ".join(sorted({type(error).__name__ for error in errors}))
            logger.error("the handler of %r failed: %s; closing with 1011", connection, kinds)
        raise
    finally:
        handler.settle()
        await connection._link.finish(code, reason)


def _check_user(user: str | None, principal: Principal | None) -> str | None:
    """Return the id of the user, who may come in as far as is known."""
    if principal is None:
        return None if user is None else check_user_id(user)
    if user is not None:
        raise TypeError("the user is that of the principal; leave user= out")
    if principal.has_expired:
        raise unauthorized("token expired")
    return principal.user


async def _accept(
    websocket: WebSocket,
    subprotocol: str | None,
    headers: Iterable[tuple[bytes, bytes]] | None,
) -> bool:
    """Accept `websocket`; return False if its peer left meanwhile."""
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
        return True
    if subprotocol is None:
        subprotocol = select_subprotocol(websocket)
    try:
        await websocket.accept(subprotocol=subprotocol, headers=headers)
    except (OSError, RuntimeError) as error:  # what servers raise for a peer that has gone
        logger.info("a peer left before it was accepted", exc_info=error)
        return False
    return True


def _closing_of(errors: list[BaseException]) -> tuple[int, str]:
    """Return the code and reason with which errors in the handler close its connection."""
    for error in errors:
        if isinstance(error, WebSocketException):
            try:
                return check_close_code(error.code), str(error.reason)
            except ValueError:
                break
    if any(isinstance(error, Exception) for error in errors):
        return CloseCode.INTERNAL_ERROR, "internal error"
    return CloseCode.GOING_AWAY, ""


def _tells_of_the_end(error: BaseException) -> bool:
    """Whether `error` is how a handler may learn that its connection is over."""
    if isinstance(error, asyncio.CancelledError):
        # Of a spawned task that it awaits; its own task was not asked to end.
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, WebSocketDisconnect)


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the errors of a task group's exception group, or the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for member in group.exceptions for leaf in _leaves(member)]
