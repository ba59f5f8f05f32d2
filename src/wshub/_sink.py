"""Where an outbox writes to: the Protocol, and the sink for any ASGI server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from wshub._eager import start_eagerly

if TYPE_CHECKING:
    from asyncio import Future

    from starlette.types import Receive, Send

    from wshub._eager import Start
    from wshub.messages import Outgoing

__all__ = ("AsgiSink", "Sink")


class Sink(Protocol):
    """
    Where one connection's frames go. Used by one event loop, one call at a time.

    A write that the peer can take now is done when the call returns, and the call returns None.
    For a peer that blocks it returns a future, which the caller awaits or cancels before the next
    write. Whatever a write raises, at once or through the future, means that the peer is gone.
    """

    def write(self, outgoing: Outgoing, start: Start, /) -> Future[None] | None:
        """Send a message, by way of `start` if that takes a coroutine."""
        ...

    def close(self, code: int, reason: str, /) -> Future[None] | None:
        """Send a close frame. Nothing is written after it."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the transport holds because the peer does not read; 0 where unknown."""
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


class AsgiSink:
    """Writes through the `send` of any ASGI server."""

    __slots__ = ("_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

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
        return 0 if transport is None else transport.get_write_buffer_size()

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
        transport = self._transport
        if transport is None or (transport.is_closing() and not transport.get_write_buffer_size()):
            return  # one that is empty ends by itself; asyncio's fails on an abort once it has
        transport.abort()

    @property
    def _transport(self) -> _Transport | None:
        # ASGI has no abort, so a stalled peer would keep its socket for as long as it likes.
        # uvicorn's protocols, whose bound method `receive` is, hold the transport.
        transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
        return transport if isinstance(transport, _Transport) else None


@runtime_checkable
class _Transport(Protocol):
    """What asyncio and uvloop, whose classes have no base in common, offer on a transport."""

    def get_write_buffer_size(self) -> int:
        """Return the bytes that are not written yet."""
        ...

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        ...

    def abort(self) -> None:
        """Close at once; what is not written is lost."""
        ...
