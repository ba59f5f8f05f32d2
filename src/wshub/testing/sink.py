"""A server that fails in ways that real ones seldom show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket

if TYPE_CHECKING:
    from starlette.types import Message, Scope

__all__ = ("FaultySink",)


class FaultySink:
    """
    The server's side of one ASGI WebSocket, made by hand, with faults to be set.

    `async with manager.connection(sink.websocket)` runs over it. The handshake is the first event.

    Attributes:
        websocket: The WebSocket that an app gets of it.
        events: What `receive` returns next: ASGI events, or errors that it raises.
        sent: ASGI events that the app sent.
        fault: Raised by every send from now on.
        blocked: While set, sends wait for it.
        send_timeout: Seconds after which such a send raises TimeoutError by itself.
        on_cancel: What such a send raises when it is cancelled.
        gate: While set, sends wait for this one future, which several sinks may share.
        yields: Whether sends give the event loop a turn.
        pace: Seconds that such a turn takes.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.sent: list[Message] = []
        self.fault: BaseException | None = None
        self.blocked: asyncio.Event | None = None
        self.send_timeout: float | None = None
        self.on_cancel: BaseException = asyncio.CancelledError()
        self.gate: asyncio.Future[None] | None = None
        self.yields: bool = False
        self.pace: float = 0.0
        scope: Scope = {"type": "websocket", "headers": [], "subprotocols": []}
        self.websocket: WebSocket = WebSocket(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _send(self, event: Message) -> None:
        if self.yields:
            await asyncio.sleep(self.pace)
        if self.gate is not None:
            await self.gate
        if self.blocked is not None:
            try:
                async with asyncio.timeout(self.send_timeout):
                    await self.blocked.wait()
            except asyncio.CancelledError:
                raise self.on_cancel from None
        if self.fault is not None:
            raise self.fault
        self.sent.append(event)
