"""One accepted WebSocket."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypeVar

from wshub._clock import limit_time
from wshub._link import Link, LinkHub
from wshub.exceptions import (
    CloseCode,
    ConnectionClosed,
    OutboxFull,
    invalid_payload,
    unsupported_data,
)
from wshub.messages import encode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Coroutine

    from starlette.websockets import WebSocket

    from wshub._admission import Seat
    from wshub._outbox import Outbox
    from wshub.auth.principal import Principal
    from wshub.exceptions import RoomAction

__all__ = ("Connection",)

T = TypeVar("T")
StateT_co = TypeVar("StateT_co", covariant=True, default=object)


class _Hub(LinkHub, Protocol):
    """What a connection needs of the manager it belongs to."""

    async def authorize(
        self, action: RoomAction, principal: Principal | None, user: str | None, room: str
    ) -> None:
        """Raise `AccessDenied` unless `principal`, or `user`, may do `action` in `room`."""
        ...

    def refresh(self, connection: Connection, principal: Principal) -> None:
        """Go on with a newer `principal` of the same user behind `connection`."""
        ...

    async def join(self, connection: Connection, room: str) -> None:
        """Put `connection` into `room`."""
        ...

    async def leave(self, connection: Connection, room: str) -> None:
        """Take `connection` out of `room`."""
        ...

    def rooms_of(self, connection: Connection) -> frozenset[str]:
        """Return the rooms that `connection` is in."""
        ...


class Connection(Generic[StateT_co]):
    """
    One accepted WebSocket: made by `ConnectionManager.connection()` or `connect()`.

    A task of its own always reads from the peer, a bounded number of messages ahead of the
    handler, so that a disconnect is seen while the handler is busy or only sends. Once the
    connection is over, whatever sends, receives, joins or spawns raises `ConnectionClosed`, and
    iterators end; `close()`, `leave()` and `abort()` are fine then.

    All methods belong to the event loop that accepted the WebSocket.

    Attributes:
        id: Unguessable and unique; safe to show to other clients.
        user: Id of the user behind it, or None.
        principal: Who that is, as `authenticate()` found out, or None; see `refresh()`.
        state: The app's own object, as given to the manager.
        websocket: Starlette's object. Its `send_*`, `receive_*` and `close` go through this
            connection and stay usable.
        outbox: The queue in front of the peer; `messages` and `bytes` say what waits in it.
    """

    __slots__ = (
        "__weakref__",
        "_hub",
        "_link",
        "_seat",
        "id",
        "outbox",
        "principal",
        "state",
        "user",
        "websocket",
    )

    def __init__(
        self,
        websocket: WebSocket,
        hub: _Hub,
        *,
        user: str | None,
        principal: Principal | None = None,
        state: StateT_co,
        seat: Seat,
    ) -> None:
        self.id: str = secrets.token_urlsafe(12)
        self.user: str | None = user
        self.principal: Principal | None = principal
        self.state: StateT_co = state
        self.websocket: WebSocket = websocket
        self._hub = hub
        self._seat = seat
        self._link = Link(self, hub)
        self.outbox: Outbox = self._link.outbox

    def __repr__(self) -> str:
        closure = self._link.closure
        condition = "open" if closure is None else f"closed {closure.code}"
        return f"<Connection {self.id} user={self.user!r} {condition}>"

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in. Empty once the connection is over."""
        return self._hub.rooms_of(self)

    @property
    def closed(self) -> ConnectionClosed | None:
        """How it ended, as the error that its methods raise; None while it is open."""
        closure = self._link.closure
        return None if closure is None else ConnectionClosed(*closure)

    async def send(self, message: object) -> None:
        """
        Send `message` after all that was sent before; wait while the outbox is full.

        Returns when the message is written or queued. May be cancelled: a message that still
        waited for room is then not sent.

        Raises:
            ConnectionClosed: The connection is over; also when this call waited for room for
                `send_timeout` seconds, for which the peer is cut off.
            MessageNotEncodable: Nothing was sent.
        """
        await self._link.send(encode(message))

    def send_nowait(self, message: object) -> None:
        """
        Send `message` after all that was sent before, or raise if it would have to wait for room.

        Raises:
            OutboxFull: The message was not queued; the connection stays open.
            ConnectionClosed: The connection is over.
            MessageNotEncodable: Nothing was sent.
        """
        outgoing = encode(message)
        self._link.check_open()
        if not self.outbox.has_room(outgoing):
            raise OutboxFull(self.id, self.outbox.messages, self.outbox.bytes)
        self.outbox.put(outgoing)
        self._link.check_open()

    async def receive(self, *, timeout: float | None = None) -> str | bytes:
        """
        Return the next message: str from a text frame, bytes from a binary one.

        May be cancelled, and may time out, without losing a message.

        Args:
            timeout: Seconds to wait, or None for no limit.

        Raises:
            ConnectionClosed: The connection is over and all that arrived before was received.
            TimeoutError: Nothing arrived in time.
            ConcurrentReceive: Another task is receiving already.
        """
        async with limit_time(self._hub.clock, timeout):
            return await self._link.receive()

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message; the iteration ends with the connection."""
        try:
            return await self._link.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def iter_text(self) -> AsyncIterator[str]:
        """
        Iterate over text messages until the connection is over.

        Raises:
            Rejection: The peer sent a binary message; unhandled, it closes with 1003.
        """
        async for message in self:
            if isinstance(message, bytes):
                raise unsupported_data("expected text, got binary")
            yield message

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """
        Iterate over binary messages until the connection is over.

        Raises:
            Rejection: The peer sent a text message; unhandled, it closes with 1003.
        """
        async for message in self:
            if isinstance(message, str):
                raise unsupported_data("expected binary, got text")
            yield message

    async def iter_json(self) -> AsyncIterator[Any]:
        """
        Iterate over the values of JSON text messages until the connection is over.

        Raises:
            Rejection: The peer sent a binary message (unhandled, it closes with 1003) or text
                that is not JSON (1007).
        """
        async for text in self.iter_text():
            try:
                value = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError) as error:
                raise invalid_payload(f"invalid JSON: {error}") from error
            yield value

    async def iter_model(self, model: type[T] | TypeAdapter[T]) -> AsyncIterator[T]:
        """
        Iterate over JSON text messages, each validated as `model`, until the connection is over.

        Args:
            model: A pydantic model, a dataclass or any other type that pydantic validates. Pass
                a `TypeAdapter` for a union.

        Raises:
            Rejection: The peer sent a binary message (unhandled, it closes with 1003), or text
                that is not JSON or does not validate (1007).
        """
        adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
        async for text in self.iter_text():
            try:
                value = adapter.validate_json(text)
            except ValidationError as error:
                raise invalid_payload(_describe(error)) from error
            yield value

    async def join(self, room: str) -> None:
        """
        Join `room`; being in it already is fine.

        Raises:
            InvalidRoomName: The name is empty or too long, or has control characters.
            AccessDenied: `authorize_join` of the manager does not let it.
            LimitExceeded: It is in `Limits.rooms_per_connection` rooms already.
            ConnectionClosed: The connection is over.
        """
        self._link.check_open()
        await self._hub.authorize("join", self.principal, self.user, room)
        self._link.check_open()
        await self._hub.join(self, room)

    async def leave(self, room: str) -> None:
        """Leave `room`; not being in it is fine."""
        await self._hub.leave(self, room)

    def refresh(self, principal: Principal) -> None:
        """
        Go on with a newer `principal`, say because the client sent a new token.

        From now on it expires when that does, and belongs to its session. One that has expired
        closes the connection with 3000, one of another session that was logged out a moment ago
        as that was. Rooms stay as they are.

        Raises:
            ConnectionClosed: The connection is over.
            OtherUser: It is another user's. Uncaught, it closes the connection with 3003.
        """
        self._link.check_open()
        self._hub.refresh(self, principal)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """
        Send what is queued, then close; a second call only waits for the first.

        The connection leaves the registry and its rooms at once. A peer that does not take the
        close frame in time is dropped. Cancelling stops the waiting, not the closing.

        Args:
            code: A code that a close frame may carry.
            reason: For the peer to read; cut to 123 bytes of UTF-8.

        Raises:
            ValueError: The code cannot be sent (RFC 6455 §7.4.1).
        """
        await self._link.close(code, reason)

    def abort(self) -> None:
        """
        Drop the connection at once: nothing queued is sent, the peer sees 1006.

        Under servers that offer no way to do so, the connection ends when its handler returns.
        """
        self._link.abort()

    def spawn(self, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """
        Run `coroutine` in a task that is cancelled when the connection ends.

        An error in it is logged and closes the connection with 1011.

        Raises:
            ConnectionClosed: The connection is over; the coroutine is not run.
        """
        return self._link.spawn(coroutine)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # RFC 8259 §6


def _describe(error: ValidationError) -> str:
    """Say where the first problem is, without the input and without a word about our code."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
