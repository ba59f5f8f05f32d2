"""How much one manager takes on, and how much of it from one user, address or connection."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING

from wshub._addresses import parse_proxies

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ("Limits",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    Limits of one manager in this process. None is no limit.

    A handshake over a limit is refused with `LimitExceeded` before it is accepted: HTTP 503 for
    `connections`, 429 for those of one user or address, both with Retry-After, or close code 1013
    (see `RejectionHandler`). Each time that a limit is reached is counted, logged and told to
    hooks as `LimitReached`.

    Attributes:
        connections: Connections in all.
        connections_per_user: Connections of one user. Those without a user are not counted.
        connections_per_address: Connections from one client address; from one /64 network for
            IPv6, which is what one client gets. Behind a proxy all clients share its address
            unless the server or `trusted_proxies` looks through it.
        trusted_proxies: Addresses and networks of your proxies, as `"10.0.0.0/8"`, and `"unix"`
            for a Unix socket. Where the peer is one of them, the client address is the last one
            in X-Forwarded-For that is not. Leave it empty if the server does this already, as
            uvicorn does with `--forwarded-allow-ips`.
        rooms_per_connection: Rooms that one connection may be in; a join beyond raises
            `LimitExceeded`, which closes with 1008 where nobody catches it.
        message_bytes: Length of one message from a peer, in bytes of binary or UTF-8; one that
            is longer closes with 1009. The server has read it by then: give it a limit too, as
            uvicorn's `--ws-max-size`, to bound memory.
        messages_per_second: Messages from one peer, as a token bucket.
        bytes_per_second: Bytes of messages from one peer, as a token bucket.
        burst: Seconds' worth of messages and of bytes that a peer may send at once. One that
            sends more is warned (hooks can tell it), and its messages still arrive; once it is
            as much in debt again, the connection closes with 1008.
        retry_after: Seconds after which a refused client is told to come back.

    Raises:
        ValueError: A limit is no positive number, or a proxy is no address or network.
        TypeError: `trusted_proxies` is a single string.
    """

    connections: int | None = None
    connections_per_user: int | None = None
    connections_per_address: int | None = None
    trusted_proxies: Collection[str] = ()
    rooms_per_connection: int | None = 1024
    message_bytes: int | None = None
    messages_per_second: float | None = None
    bytes_per_second: float | None = None
    burst: float = 10.0
    retry_after: float = 5.0

    def __post_init__(self) -> None:
        parse_proxies(self.trusted_proxies)
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float)
            may_be_none = "None" in str(field.type)
            if field.name == "trusted_proxies" or (value is None and may_be_none):
                continue
            if not (is_number and 0 < value < inf):
                raise ValueError(f"{field.name} must be a positive number, not {value!r}")
