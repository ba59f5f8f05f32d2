"""Where an outbox writes to: the Protocol, and the sink for any ASGI server."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from starlette.types import Receive, Send

    from wshub.messages import Outgoing

__all__ = ("AsgiSink", "Sink")


class Sink(Protocol):
    """
    Where one connection's frames go. Used by one event loop, one call at a time.

    A write that the peer can take now is done when the call returns, and the call returns None.
    For a peer that blocks it returns what is left to await, in one task and to its end, before
    the next write. Whatever a write raises means that the peer is gone.
    """

    def write(self, outgoing: Outgoing, /) -> Awaitable[None] | None:
        """Send a message."""
        ...

    def close(self, code: int, reason: str, /) -> Awaitable[None] | None:
        """Send a close frame. Nothing is written after it."""
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

    def write(self, outgoing: Outgoing, /) -> Awaitable[None] | None:
        return _begin(self._send(outgoing.event))

    def close(self, code: int, reason: str, /) -> Awaitable[None] | None:
        return _begin(self._send({"type": "websocket.close", "code": code, "reason": reason}))

    def abort(self) -> None:
        # ASGI has no abort, so a stalled peer would keep its socket for as long as it likes.
        # uvicorn's protocols, whose bound method `receive` is, hold the transport.
        transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
        abort = getattr(transport, "abort", None)
        if callable(abort):
            abort()


def _begin(sending: Awaitable[None]) -> Awaitable[None] | None:
    """
    Run `sending` in the caller's task up to where it first waits.

    Servers seldom wait, and then a task for each recipient would cost more than the write.
    """
    steps = sending.__await__()
    try:
        awaited = next(steps)
    except StopIteration:
        return None
    return _finish(steps, awaited)


@coroutine
def _finish(steps: Generator[object, object, None], awaited: object) -> Generator[object, object]:
    """Go on with a started awaitable: a generator-based coroutine, as only these can yield."""
    while True:
        try:
            try:
                value = yield awaited
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # cancellation too is for the server to see
                awaited = steps.throw(error)
            else:
                awaited = steps.send(value)
        except StopIteration:
            return
