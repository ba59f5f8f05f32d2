"""How many handshakes are looked at: those beyond are refused before the app hears of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from wshub._address_rate import AddressRate
from wshub._addresses import find_address, parse_proxies
from wshub._clock import LoopClock
from wshub.auth.refusal import log_refusal
from wshub.exceptions import CloseCode

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

    from wshub._clock import Clock

__all__ = ("HandshakeLimit",)


class HandshakeLimit:
    """
    ASGI middleware that refuses WebSockets of one address that come too fast, with HTTP 403.

    `app.add_middleware(HandshakeLimit, per_second=5)` has it look at handshakes before routes and
    dependencies run, so that a flood of strangers costs little. HTTP requests pass. It counts
    in this process.

    Args:
        app: The app behind it.
        per_second: Handshakes of one address, as a token bucket; of one /64 network for IPv6.
        burst: Handshakes that it may send at once after a pause.
        trusted_proxies: As of `Limits`. Behind a proxy that neither this nor the server looks
            through, all clients share its address.
        clock: Tells the time; for tests.

    Raises:
        ValueError: A number is out of its range, or a proxy is no address or network.
        TypeError: `trusted_proxies` is a single string.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        per_second: float = 5.0,
        burst: int = 50,
        trusted_proxies: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._app = app
        self._rate = AddressRate(per_second, burst)
        self._proxies = parse_proxies(trusted_proxies)
        self._clock = clock or LoopClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, or refuse it."""
        if scope["type"] == "websocket" and not self._admits(connection := HTTPConnection(scope)):
            log_refusal(connection, "too many handshakes from this address", alarm="handshakes")
            # Not a denial response: a plain refusal costs the server least, and is no error to it.
            await send({"type": "websocket.close", "code": CloseCode.TRY_AGAIN_LATER})
            return
        await self._app(scope, receive, send)

    def _admits(self, connection: HTTPConnection) -> bool:
        address = find_address(connection, self._proxies)
        return address is None or self._rate.admits(address, self._clock.time())
