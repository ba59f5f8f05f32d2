"""The address of a client, also from behind the app's own proxies."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import HTTPConnection

__all__ = ("Proxies", "count_as", "find_address", "parse_address", "parse_proxies")

Proxies = tuple[IPv4Network | IPv6Network | None, ...]
"""Networks that are trusted; None stands for Unix sockets."""

CLIENT_PREFIX = 64
"""Bits of an IPv6 address that tell clients apart: one client usually gets all the rest."""


def parse_proxies(proxies: Collection[str]) -> Proxies:
    """
    Return the networks that `proxies` name.

    Raises:
        ValueError: One is neither an address nor a network nor `"unix"`.
        TypeError: It is a single string.
    """
    if isinstance(proxies, str):
        raise TypeError("trusted_proxies is a collection; pass trusted_proxies=[network]")
    try:
        return tuple(None if proxy == "unix" else ip_network(proxy) for proxy in proxies)
    except ValueError as error:
        raise ValueError(
            f"trusted_proxies: {error}; use addresses, networks as '10.0.0.0/8', or 'unix'"
        ) from error


def find_address(connection: HTTPConnection, proxies: Proxies) -> str | None:
    """Return the address that stands for the client of `connection`; None if it has none."""
    peer = connection.client.host if connection.client else ""
    address = parse_address(peer)
    if not proxies or not _is_trusted(address, peer, proxies):
        return None if address is None else count_as(address)
    # Each proxy adds at the end whom it talks to, so that only the end can be relied on.
    chain = [
        hop.strip()
        for header in connection.headers.getlist("x-forwarded-for")
        for hop in header.split(",")
    ]
    for hop in reversed(chain):
        forwarded = parse_address(hop)
        if forwarded is None:
            break  # whoever wrote this, nothing before it can be trusted
        address = forwarded
        if not _is_trusted(address, hop, proxies):
            break
    return None if address is None else count_as(address)


def count_as(address: IPv4Address | IPv6Address) -> str:
    """Return the name under which connections from `address` are counted."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, CLIENT_PREFIX), strict=False))
    return str(address)


def _is_trusted(address: IPv4Address | IPv6Address | None, text: str, proxies: Proxies) -> bool:
    if address is None:
        return not text and None in proxies
    return any(network is not None and address in network for network in proxies)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that `text` is, with or without a port."""
    host = text
    if text.startswith("["):  # [2001:db8::1]:443
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
