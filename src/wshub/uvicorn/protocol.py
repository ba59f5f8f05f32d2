"""uvicorn's WebSocket protocol, with a way for ready-made frames."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

from wshub._sink import FRAMES_EXTENSION, abort_transport
from wshub.uvicorn._deflate import make_extensions, window_bits_of
from wshub.uvicorn._sink import UvicornSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message as AsgiEvent
    from uvicorn._types import (
        ASGI3Application,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )
    from uvicorn.config import Config
    from uvicorn.server import ServerState
    from websockets.frames import Frame

    from wshub._sink import Held, Receiver

__all__ = ("FanoutProtocol",)

SLICE = 4096
"""Bytes read before a look whether there is room for more: inflated, they may be many."""


class FanoutProtocol(WebSocketsSansIOProtocol):
    """
    Sends what wshub's managers send as ready-made frames, and hands them what comes in.

    For `uvicorn main:app --ws wshub.uvicorn:FanoutProtocol` and `uvicorn.run(app,
    ws=FanoutProtocol)`. Whatever no manager has taken over goes as under uvicorn's own protocol,
    but for permessage-deflate, which is agreed upon without context takeover by the server
    (RFC 7692 §7.1.1.1).
    """

    app: ASGI3Application
    frames: list[bytes]
    queue: asyncio.Queue[ASGIReceiveEvent]
    read_paused: bool

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        if self.config.ws_per_message_deflate:
            self.conn.available_extensions = make_extensions()
        self._app: ASGI3Application = self.app
        self.app = self._run_app
        self._sink = UvicornSink(self)
        self._receiver: Receiver | None = None
        self._held: Held | None = None
        self._receiving = 0
        self._is_full = False
        self._has_ended = False
        self._backlog: deque[str | bytes] | tuple[()] = ()
        self._unread = b""
        self._late_pong = b""
        self._arrived = 0

    @property
    def window_bits(self) -> int:
        """Window, in bits, that frames may be compressed with; 0: not at all."""
        return window_bits_of(self.conn)

    def attach(self, receiver: Receiver, held: Held) -> None:
        """Hand what was not received yet, and all that comes in, to `receiver`."""
        self._receiver, self._held = receiver, held
        events = self.queue
        # A queue is a third of what an idle connection takes. Who waits in it already sees the end.
        self.queue = _Events(self._end, events if self._receiving else None)  # type: ignore[assignment]
        self._unpause()
        while not events.empty():
            event: Any = events.get_nowait()
            if event["type"] == "websocket.disconnect":
                self._end(event)
            else:
                text = event.get("text")
                self._take(event["bytes"] if text is None else text)
        self._read()

    def resume(self) -> None:
        """Go on reading: the receiver has room again."""
        if self._has_ended:
            return  # it has room because that was the end; who brought that about goes on by itself
        self._is_full = False
        while self._backlog and not self._is_full:
            self._take(self._backlog.popleft())
        if not self._backlog:
            self._unpause()
            self._read()

    async def send(self, message: ASGISendEvent) -> None:
        """Take an ASGI event; what the manager sent before leaves before."""
        if self._held is not None:
            self._held.flush()
            await self._held.drained()
        await super().send(message)
        if message["type"] == "websocket.close":
            self._sink.end()
            self._read()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next ASGI event, unless a manager has taken over."""
        self._receiving += 1
        try:
            event = await super().receive()
        finally:
            self._receiving -= 1
        self._read()
        return event

    def data_received(self, data: bytes) -> None:
        """Read no more of `data` than is taken."""
        self._unread += data
        self._read()

    def send_receive_event_to_app(self) -> None:
        """Hand over a whole message."""
        data = self.frames[0]
        self._arrived += len(data)
        try:
            message = str(data, "utf-8") if self.curr_msg_data_type == "text" else bytes(data)
        except UnicodeDecodeError:
            self._refuse_text()
            return
        if self._receiver is None or self.close_sent:
            self.frames = [bytes(data)]
            super().send_receive_event_to_app()
        else:
            self.frames = []
            self._take(message)

    def handle_cont(self, event: Frame) -> None:
        """Take a part of a message: any number of them is one piece, so empty ones take nothing."""
        parts: list[Any] = self.frames
        if not isinstance(parts[0], bytearray):
            parts[0] = bytearray(parts[0])
        parts[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, or keep the answer until the peer reads: the last one will do (§5.5.3)."""
        if self.conn.close_sent is not None:
            self._flush()  # the answer to a close frame behind it leaves with this one
        if self.writable.is_set():
            super().handle_ping()
        else:
            # The first ping of a segment comes with the answers to all of it.
            self._late_pong = b"".join(self.conn.data_to_send()) or self._late_pong

    def handle_close(self, event: Frame) -> None:
        """Take the peer's close frame; what was collected before leaves before the answer."""
        self._flush()
        self._write_late_pong()
        super().handle_close(event)
        self._sink.end()

    def handle_parser_exception(self) -> None:
        """End it: the peer broke the protocol."""
        self._flush()
        self._write_late_pong()
        if self.conn.close_sent is None:  # it did not wait for the answer to its handshake
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.transport.close()
        else:
            super().handle_parser_exception()
        self._unread = b""
        self._sink.end()

    def keepalive_timeout(self) -> None:
        """End it: the peer did not answer a ping, or ask again if its answer was not read."""
        if self.read_paused and self._receiver is not None:
            self.stop_keepalive()
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self._sink.end()
        if self._receiver is not None and self.transport.get_write_buffer_size():
            abort_transport(self.transport)  # nobody will ever take what it holds

    def eof_received(self) -> None:
        """Write all that waits for a peer that only reads on; the transport closes next."""
        # Transports for TLS tell of the end though reading is paused.
        self._read(everything=True)
        self._pour()
        self._sink.end()

    def pause_writing(self) -> None:
        """Write nothing past the transport, which holds something now."""
        super().pause_writing()
        self._sink.shut()

    def resume_writing(self) -> None:
        """Go on past the transport."""
        super().resume_writing()
        self._write_late_pong()
        self._sink.open()

    def shutdown(self) -> None:
        """Say 1012 behind everything that waits, or what was to be said there."""
        if self.conn.close_sent is not None and not self.close_sent:
            # It answered the peer's close frame, and the peer does not read the answer.
            self.stop_keepalive()
            self.transport.close()
            return
        self._pour()
        self._write_late_pong()
        closure = None if self._held is None else self._held.closure
        if closure is None or self.close_sent or self.transport.is_closing():
            super().shutdown()
        else:  # who is told to go away for good must not be told to come back
            self.stop_keepalive()
            self.conn.send_close(closure.code, closure.reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        self._sink.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._sink.end()
        super().connection_lost(exc)
        self._receiver = self._held = None
        self._sink.lose()

    async def _run_app(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        extensions = cast("dict[str, Any]", scope).setdefault("extensions", {})
        extensions[FRAMES_EXTENSION] = {"sink": self._sink, "receive": receive}
        try:
            return await self._app(scope, receive, send)
        finally:
            self._pour()  # uvicorn closes the transport next
            self._sink.end()

    def _flush(self) -> None:
        if self._held is not None:
            self._held.flush()

    def _pour(self) -> None:
        if self._held is not None:
            self._held.pour()

    def _refuse_text(self) -> None:
        if self.close_sent:
            return
        if self.conn.state is OPEN:  # and the peer has not closed in the same segment
            self.conn.send_close(1007)
        self.handle_parser_exception()

    def _write_late_pong(self) -> None:
        if self._late_pong:
            pong, self._late_pong = self._late_pong, b""
            self.transport.write(pong)

    def _unpause(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def _read(self, *, everything: bool = False) -> None:
        position, unread, self._unread = 0, self._unread, b""
        # Of a peer that has closed behind more than a message of the longest, the rest is lost.
        left = self._arrived + self.config.ws_max_size if everything else 0
        while position < len(unread) and (self._arrived < left or not self.read_paused):
            if self.transport.is_closing():
                break
            super().data_received(unread[position : position + SLICE])
            position += SLICE
        if not self.transport.is_closing():
            self._unread = unread[position:] + self._unread

    def _take(self, message: str | bytes) -> None:
        if self._is_full:
            # Only now reading stops: until the peer sends more, its end would not be seen.
            self._backlog = self._backlog or deque()
            self._backlog.append(message)
            if not self.read_paused and not self.transport.is_closing():
                self.read_paused = True
                self.transport.pause_reading()
        elif self._receiver is not None:  # pragma: no branch  (nobody calls it without)
            self._is_full = not self._receiver.take(message)

    def _end(self, event: AsgiEvent) -> None:
        if self._receiver is not None:  # pragma: no branch  (nobody calls it without)
            self._has_ended = True
            backlog, self._backlog = self._backlog, ()
            for message in backlog:
                self._receiver.take(message)
            self._receiver.see_disconnect(event)


class _Events:
    """Stands in for the queue of ASGI events of a connection that a manager has taken over."""

    __slots__ = ("_on_disconnect", "_queue")

    def __init__(
        self,
        on_disconnect: Callable[[AsgiEvent], None],
        queue: asyncio.Queue[Any] | None,
    ) -> None:
        self._on_disconnect = on_disconnect
        self._queue = queue

    def put_nowait(self, event: AsgiEvent) -> None:
        """Take the end: messages go another way."""
        self._demand().put_nowait(event)
        self._on_disconnect(event)

    async def get(self) -> AsgiEvent:
        """Return the end once it has come."""
        event: AsgiEvent = await self._demand().get()
        return event

    def empty(self) -> bool:
        """Whether it has not come, or was returned."""
        return self._demand().empty()

    def _demand(self) -> asyncio.Queue[Any]:
        if self._queue is None:
            self._queue = queue = asyncio.Queue[Any]()
            return queue
        return self._queue
