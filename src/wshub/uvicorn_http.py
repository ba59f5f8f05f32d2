"""A limit on connections that uvicorn keeps, before it reads a request."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, cast

from wshub._address_rate import AddressRate
from wshub._addresses import count_as, parse_address, parse_proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ("limit_connections",)

_logger = logging.getLogger("wshub")

QUIET_SECONDS = 60.0
"""Seconds between two warnings: whoever wants in can ask without end."""


def limit_connections(
    *, per_second: float = 10.0, burst: int = 100, trusted_proxies: Collection[str] = ()
) -> type[asyncio.Protocol]:
    """
    Build a protocol for `uvicorn.run(app, http=…)` that drops whoever connects too often.

    Parsing a handshake costs a server ten times what dropping its connection does: this is for a
    server that stands a flood without a proxy in front. With TLS of uvicorn's own the handshake of
    TLS comes first. It counts all connections of an address,
    those of HTTP requests too, in this process, and whom it drops gets no answer.

    Args:
        per_second: Connections of one address, as a token bucket; of a /64 network for IPv6.
        burst: Connections that it may open at once after a pause.
        trusted_proxies: Addresses and networks that are not counted, as all clients share them.

    Raises:
        ValueError: A number is out of its range, or a proxy is no address or network.
        TypeError: `trusted_proxies` is a single string.
        ImportError: uvicorn is missing.
    """
    make = _find_protocol()
    proxies = parse_proxies(trusted_proxies)
    rate = AddressRate(per_second, burst)
    quiet_until = 0.0

    def admits(transport: asyncio.BaseTransport) -> bool:
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            return True  # of a Unix socket, say
        address = parse_address(cast("tuple[str, int]", peer)[0].partition("%")[0])
        if address is None or any(network and address in network for network in proxies):
            return True
        return rate.admits(count_as(address), time.monotonic())

    def warn(transport: asyncio.BaseTransport) -> None:
        nonlocal quiet_until
        now = time.monotonic()
        if now >= quiet_until:
            quiet_until = now + QUIET_SECONDS
            peer = transport.get_extra_info("peername")
            _logger.warning("dropped a connection from %s: too many of this address", peer[0])

    class LimitedProtocol(asyncio.Protocol):
        """Hands over to uvicorn's own, for those who are admitted."""

        def __init__(self, **options: object) -> None:
            self._options = options

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            if admits(transport):
                protocol = make(**self._options)
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
            else:
                warn(transport)
                cast("asyncio.Transport", transport).abort()

    return LimitedProtocol


def _find_protocol() -> Callable[..., asyncio.Protocol]:
    try:
        from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415  (no dependency)
    except ImportError as error:
        raise ImportError(
            "limit_connections() is for uvicorn: pip install uvicorn", name="uvicorn"
        ) from error
    return cast("Callable[..., asyncio.Protocol]", AutoHTTPProtocol)
