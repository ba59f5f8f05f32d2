"""Which address a client counts as, also behind proxies."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from wshub._addresses import find_address, parse_proxies


def address_of(peer: str | None, *forwarded: str, proxies: tuple[str, ...] = ()) -> str | None:
    """Return what a client counts as that comes from `peer` with these X-Forwarded-For headers."""
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    client = None if peer is None else (peer, 4711)
    connection = HTTPConnection({"type": "websocket", "client": client, "headers": headers})
    return find_address(connection, parse_proxies(proxies))


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", None),
        ("", None),
        (None, None),
    ],
)
def test_a_peer_counts_as_its_address_or_its_ipv6_network(
    peer: str | None, counted: str | None
) -> None:
    """IPv4 by the address, IPv6 by the /64 that one client gets; a Unix socket has no address."""
    assert address_of(peer) == counted


def test_a_header_of_a_stranger_changes_nothing() -> None:
    """Whoever connects may send X-Forwarded-For; it is believed from trusted proxies only."""
    assert address_of("192.0.2.7", "198.51.100.1") == "192.0.2.7"
    assert address_of("192.0.2.7", "198.51.100.1", proxies=("10.0.0.0/8",)) == "192.0.2.7"
    assert address_of("2001:db8::1", "198.51.100.1", proxies=("10.0.0.0/8",)) == "2001:db8::/64"
    assert address_of(None, "198.51.100.1", proxies=("10.0.0.0/8",)) is None
    assert address_of("10.0.0.1", "198.51.100.1", proxies=("unix",)) == "10.0.0.1"
    assert address_of("testclient", "198.51.100.1", proxies=("unix",)) is None


@pytest.mark.parametrize(
    "forwarded",
    [
        ("192.0.2.7",),
        ("192.0.2.7, 10.0.0.2",),
        ("192.0.2.7", "10.0.0.2"),
        (" 192.0.2.7 ,10.0.0.2, 10.9.9.9",),
        ("192.0.2.7:5000, 10.0.0.2:80",),
        ("::ffff:192.0.2.7",),
        ("[::ffff:192.0.2.7]:5000, [::ffff:10.0.0.2]",),
        ("198.51.100.1, 192.0.2.7",),
        ("10.0.0.9, 198.51.100.1, 192.0.2.7, 10.0.0.2",),
        ("not an address", "192.0.2.7, 10.0.0.2"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("peer", "proxies"),
    [
        ("10.0.0.1", ("10.0.0.0/8",)),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",)),
        ("2001:db8::1", ("2001:db8::1", "10.0.0.0/8")),
        (None, ("unix", "10.0.0.0/8")),
        ("", ("10.0.0.0/8", "unix")),
    ],
)
def test_the_last_hop_that_is_no_proxy_is_the_client(
    forwarded: tuple[str, ...], peer: str | None, proxies: tuple[str, ...]
) -> None:
    """Each proxy adds whom it talks to at the end; what a client made up comes before that."""
    assert address_of(peer, *forwarded, proxies=proxies) == "192.0.2.7"


def test_a_client_of_ipv6_behind_a_proxy() -> None:
    """It counts as its network, with or without brackets and a port."""
    for written in ("2001:db8:1:2::9", "[2001:db8:1:2::9]", "[2001:db8:1:2::9]:443"):
        assert address_of("10.0.0.1", written, proxies=("10.0.0.0/8",)) == "2001:db8:1:2::/64"


@pytest.mark.parametrize(
    "unreadable", ["unknown", "", "10.0.0.1.evil.example", "192.0.2.7.", "[]:80", "[", "::::"]
)
def test_what_cannot_be_read_ends_the_search(unreadable: str) -> None:
    """Nothing before it can be trusted: the proxy that wrote it counts instead."""
    forwarded = f"192.0.2.7, {unreadable}, 10.0.0.2"
    assert address_of("10.0.0.1", forwarded, proxies=("10.0.0.0/8",)) == "10.0.0.2"
    assert address_of(None, unreadable, proxies=("unix",)) is None


def test_a_proxy_that_speaks_for_itself_counts_as_itself() -> None:
    """Its health checks have no header, or name proxies only."""
    assert address_of("10.0.0.1", proxies=("10.0.0.0/8",)) == "10.0.0.1"
    assert address_of("10.0.0.1", "10.0.0.3, 10.0.0.2", proxies=("10.0.0.0/8",)) == "10.0.0.3"
    assert address_of(None, proxies=("unix",)) is None


@pytest.mark.parametrize("proxy", ["10.0.0.1/8", "proxy.example", "*", "", "10.0.0.0/33", "UNIX"])
def test_a_proxy_that_is_no_address_is_a_value_error(proxy: str) -> None:
    """A typing error must not mean that nobody, or that everybody, is trusted."""
    with pytest.raises(ValueError, match=r"trusted_proxies: .*; use addresses, networks as"):
        parse_proxies([proxy])


def test_a_single_string_of_proxies_is_a_type_error() -> None:
    """Taken apart, each of its letters would be a proxy."""
    with pytest.raises(TypeError, match=r"pass trusted_proxies=\[network\]"):
        parse_proxies("10.0.0.0/8")
