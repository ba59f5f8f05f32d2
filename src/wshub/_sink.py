"""Where an outbox writes to: the Protocols, and the sink for any ASGI server."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from wshub._eager import start_eagerly

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

    from starlette.types import Message as AsgiEvent
    from starlette.types import Receive, Send
    from starlette.websockets import WebSocket

    from wshub._eager import Start
    from wshub._farewell import Closure
    from wshub._frames import FrameForm
    from wshub.messages import Outgoing

__all__ = (
    "AsgiSink",
    "EventSink",
    "FrameSink",
    "Held",
    "Receiver",
    "Sink",
    "Transport",
    "abort_transport",
    "find_frame_sink",
    "let_abort",
    "shows_progress_of",
    "unsent_bytes_of",
)

FRAMES_EXTENSION = "wshub.frames"
"""Under this key of `scope["extensions"]` a server offers a `FrameSink` and its `receive`."""


class Sink(Protocol):
    """Where one connection's messages go. Used by one event loop, one call at a time."""

    def close(self, code: int, reason: str, /) -> Future[None] | None:
        """Send a close frame. Nothing is written after it. Waits and raises as a write does."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the transport holds because the peer does not read; 0 where unknown."""
        ...

    @property
    def shows_progress(self) -> bool:
        """Whether these become fewer as the peer reads."""
        ...

    @property
    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be; False where unknown."""
        ...

    @property
    def closes_while_read(self) -> bool:
        """Whether a close that waits goes on while the app receives; else it waits for that."""
        ...

    def abort(self) -> None:
        """Drop the connection at once where the server offers a way; otherwise do nothing."""
        ...


class EventSink(Sink, Protocol):
    """A sink that takes one message at a time."""

    def write(self, outgoing: Outgoing, start: Start, /) -> Future[None] | None:
        """
        Send a message, by way of `start` if that takes a coroutine.

        A write that the peer can take now is done when the call returns, and the call returns
        None. For a peer that blocks it returns a future, which the caller awaits or cancels
        before the next write. Whatever it raises, at once or through the future, means that the
        peer is gone.
        """
        ...


class FrameSink(Sink, Protocol):
    """A sink that takes frames as they go over the wire, and hands over what it receives."""

    def write(self, frames: bytes, /) -> Future[None] | None:
        """
        Send `frames`, or what is left of them, by way of the transport.

        Returns:
            None if the transport holds nothing now, or what is done once that is so.

        Raises:
            ConnectionError: The peer is gone.
        """
        ...

    def attach(self, receiver: Receiver, held: Held, compress_from: int, /) -> None:
        """
        Hand all that comes in to `receiver` from now on.

        What goes out comes from `held`, whose attributes it sets now and whenever they change.
        """
        ...

    def resume(self) -> None:
        """Go on reading after `Receiver.take()` returned False."""
        ...


class Receiver(Protocol):
    """What takes the messages of one peer, pushed by its server."""

    def take(self, message: str | bytes, /) -> bool:
        """Take a message; False: take no more until it calls `FrameSink.resume()`."""
        ...

    def see_disconnect(self, event: AsgiEvent, /) -> None:
        """Take note of a `websocket.disconnect`."""
        ...


class Held(Protocol):
    """
    What is held back for one peer and has to leave before its server closes.

    Attributes:
        form: What frames are to look like.
        descriptor: Where `os.write()` may put them now, as the transport holds nothing; negative:
            only `FrameSink.write()` may.
    """

    form: FrameForm
    descriptor: int

    @property
    def closure(self) -> Closure | None:
        """How its connection has ended, if it has; the close frame may not have left yet."""
        ...

    def flush(self) -> None:
        """Write what was collected in this turn."""
        ...

    async def drained(self) -> None:
        """Wait until nothing waits any longer. May be cancelled."""
        ...

    def pour(self) -> None:
        """Hand everything that waits to the transport, whatever that holds already."""
        ...


def find_frame_sink(websocket: WebSocket) -> FrameSink | None:
    """
    Return the sink that the server of `websocket` offers, if there is one.

    A middleware that has put a `receive` of its own in between expects to see every message.
    """
    offer = websocket.scope.get("extensions", {}).get(FRAMES_EXTENSION)
    if offer is None or offer["receive"] != websocket._receive:
        return None
    return cast("FrameSink", offer["sink"])


class AsgiSink:
    """Writes through the `send` of any ASGI server."""

    __slots__ = ("_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        if self._transport is not None:
            let_abort(self._transport)

    def write(self, outgoing: Outgoing, start: Start, /) -> Future[None] | None:
        """Send a message."""
        return start(self._send(outgoing.event))

    def close(self, code: int, reason: str, /) -> Future[None] | None:
        """Send a close frame. Nothing is written after it."""
        return start_eagerly(
            self._send({"type": "websocket.close", "code": code, "reason": reason})
        )

    @property
    def unsent_bytes(self) -> int:
        """Bytes that uvicorn's transport holds; 0 under other servers."""
        transport = self._transport
        return 0 if transport is None else unsent_bytes_of(transport)

    @property
    def shows_progress(self) -> bool:
        """Whether these become fewer as the peer reads; not with TLS on uvloop."""
        transport = self._transport
        return transport is None or shows_progress_of(transport)

    @property
    def is_closing(self) -> bool:
        """Whether uvicorn's transport is closed or about to be; False under other servers."""
        transport = self._transport
        return transport is not None and transport.is_closing()

    @property
    def closes_while_read(self) -> bool:
        """
        Whether this is uvicorn, whose protocol for `--ws websockets` even asks for it.

        granian lets no close through while the app receives.
        """
        return self._transport is not None

    def abort(self) -> None:
        """Drop uvicorn's transport; under other servers do nothing."""
        if self._transport is not None:
            abort_transport(self._transport)

    @property
    def _transport(self) -> Transport | None:
        # ASGI has no abort, so a stalled peer would keep its socket for as long as it likes.
        # uvicorn's protocols, whose bound method `receive` is, hold the transport.
        transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
        return transport if isinstance(transport, Transport) else None


@runtime_checkable
class Transport(Protocol):
    """What asyncio and uvloop, whose classes have no base in common, offer on a transport."""

    def get_write_buffer_size(self) -> int:
        """Return the bytes that are not written yet."""
        ...

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        ...

    def get_extra_info(self, name: str) -> object:
        """Return the SSL context, for the name `sslcontext`, if it encrypts."""
        ...

    def close(self) -> None:
        """Close once what is not written yet is written."""
        ...

    def abort(self) -> None:
        """Close at once; what is not written is lost."""
        ...


def let_abort(transport: Transport) -> None:
    """See to it that `transport` can be aborted once its server has closed it, perhaps twice."""
    # At a second close asyncio's for TLS forgets what it would have to abort.
    if transport.is_closing():
        return  # and may have been closed twice
    if isinstance(transport, asyncio.Transport) and _encrypts(transport):
        transport.close = partial(_close_once, transport, transport.close)  # type: ignore[method-assign]


def _close_once(transport: Transport, close: Callable[[], None]) -> None:
    if not transport.is_closing():
        close()


def _encrypts(transport: Transport) -> bool:
    return (
        getattr(transport, "_ssl_protocol", transport) is not None
        and transport.get_extra_info("sslcontext") is not None
    )


def unsent_bytes_of(transport: Transport) -> int:
    """Return the bytes that are not sent; under TLS at least one: it loses sight of the last."""
    if getattr(transport, "_ssl_protocol", transport) is None:
        return 0  # asyncio's for TLS, closed twice, answers no more
    if not _encrypts(transport):
        return transport.get_write_buffer_size()
    below = _find_transport_below(transport)
    hidden = 0 if below is None else below.get_write_buffer_size()
    return max(transport.get_write_buffer_size() + hidden, 1)


def shows_progress_of(transport: Transport) -> bool:
    """Whether `unsent_bytes_of()` becomes less as the peer reads."""
    return not _encrypts(transport) or _find_transport_below(transport) is not None


def _find_transport_below(transport: Transport) -> Transport | None:
    """Return what a transport for TLS writes to, which may hold megabytes; uvloop does not say."""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return below if isinstance(below, Transport) else None


def abort_transport(transport: Transport) -> None:
    """Drop what `transport` holds, and the connection."""
    # One that is empty ends by itself; asyncio's fails on an abort once it has, but for TLS.
    if unsent_bytes_of(transport) or not transport.is_closing():
        transport.abort()
