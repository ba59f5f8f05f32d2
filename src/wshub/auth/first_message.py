"""The first message of a client as its credential."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketState

from wshub.auth.source import Place, Source
from wshub.auth.sources import select_subprotocol
from wshub.exceptions import CloseCode, Rejection, try_again_later

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import Message as AsgiEvent

__all__ = ("first_message",)


class _Waiting:
    """How many clients are waited for."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.count = 0


class _FirstMessage(Place):
    waits = True

    def __init__(self, seconds: float, waiting: _Waiting) -> None:
        super().__init__("first message")
        self._seconds = seconds
        self._waiting = waiting

    async def _read(self, connection: HTTPConnection) -> str | None:
        if not isinstance(connection, WebSocket):
            return None
        waiting = self._waiting
        if waiting.count >= waiting.maximum:
            raise try_again_later("too many clients are logging in")
        waiting.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await _receive(connection)
        except TimeoutError:
            raise Rejection(CloseCode.TIMEOUT, "no token came") from None
        finally:
            waiting.count -= 1


def first_message(*, timeout: float = 10.0, max_waiting: int = 1000) -> Source:
    """
    Wait for a text message with the token, and nothing else in it: for pages without cookies.

    The WebSocket is accepted for that, and registered only once the token is verified; what is
    refused later is refused with a close frame, which scripts can read. On an HTTP route there
    is none. In `first_of()` it has to be the last.

    Args:
        timeout: Seconds after which a client that said nothing is closed with 3008.
        max_waiting: Clients that are waited for at the same time; more are refused with 1013,
            HTTP 503.

    Raises:
        ValueError: A number is not positive.
    """
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    if max_waiting < 1:
        raise ValueError(f"max_waiting must be at least 1, not {max_waiting!r}")
    return _FirstMessage(timeout, _Waiting(max_waiting))


async def _receive(websocket: WebSocket) -> str | None:
    """Return the first message; None if it is binary. Raises `Rejection` for one that left."""
    try:
        if websocket.application_state is WebSocketState.CONNECTING:
            await websocket.accept(subprotocol=select_subprotocol(websocket))
        event = await websocket.receive()
    except (OSError, RuntimeError):  # what servers raise for a peer that has gone
        event = {"type": "websocket.disconnect"}
    if event["type"] == "websocket.disconnect":
        # Whoever handles the rejection will try to close what is closed already.
        websocket._send = _send_nothing
        raise Rejection(CloseCode.POLICY_VIOLATION, "left without a token")
    text: str | None = event.get("text")
    return text


async def _send_nothing(event: AsgiEvent) -> None:
    """Write to a peer that has left."""
