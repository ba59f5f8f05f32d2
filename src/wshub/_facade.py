"""What Starlette's WebSocket calls in place of the server, once a manager has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wshub.exceptions import CloseCode, ConnectionClosed
from wshub.messages import Outgoing

if TYPE_CHECKING:
    from starlette.types import Message as AsgiEvent
    from starlette.websockets import WebSocket

    from wshub._link import Link

__all__ = ("payload_of", "take_over")


def take_over(websocket: WebSocket, link: Link) -> None:
    """
    Lead `websocket.receive_*`, `send_*` and `close` through `link`.

    The handler may go on using the WebSocket as the tutorial does. Taking the place of the
    server's callables keeps that in order with broadcasts, lets the reader run beside
    `receive_text()`, and lets Starlette close what the hub has closed already.
    """
    facade = _Facade(link)
    websocket._receive = facade.receive
    websocket._send = facade.send


def payload_of(event: AsgiEvent) -> str | bytes:
    """Return what a `websocket.receive` or `websocket.send` event carries."""
    text: str | None = event.get("text")
    data: str | bytes = event["bytes"] if text is None else text
    return data


class _Facade:
    """The server as the WebSocket sees it."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    async def receive(self) -> AsgiEvent:
        try:
            message = await self._link.receive()
        except ConnectionClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        kind = "text" if isinstance(message, str) else "bytes"
        return _ReceiveEvent(self._link, {"type": "websocket.receive", kind: message})

    async def send(self, event: AsgiEvent) -> None:
        if event["type"] == "websocket.close":
            await self._link.close(event.get("code", 1000), event.get("reason") or "")
        else:
            await self._link.send_and_flush(Outgoing(payload_of(event)))


class _ReceiveEvent(dict[str, Any]):
    """A `websocket.receive` event that ends the link if it is not of the type that is asked for."""

    def __init__(self, link: Link, event: AsgiEvent) -> None:
        super().__init__(event)
        self._link = link

    def __missing__(self, key: str) -> object:
        # `WebSocket.receive_text()` looks up "text" and would let a KeyError end the handler.
        reason = f"this message has no {key}"
        raise ConnectionClosed(*self._link.start_closing(CloseCode.UNSUPPORTED_DATA, reason))
