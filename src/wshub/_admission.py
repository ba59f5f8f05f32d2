"""Who may connect: counts connections against the limits, from their handshake to their end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from wshub._addresses import find_address, parse_proxies
from wshub.exceptions import LimitExceeded

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from wshub.events import LimitName
    from wshub.limits import Limits

__all__ = ("Admission", "Seat")


class Seat(NamedTuple):
    """
    What one connection counts as.

    Attributes:
        user: Id of its user, or None.
        address: Client address, or None where addresses are not counted.
    """

    user: str | None
    address: str | None


class Admission:
    """
    Hands out seats. A handshake holds one already: else many at once would all find room.

    Each seat that was taken is released once.
    """

    __slots__ = ("_addresses", "_limits", "_proxies", "_taken", "_users")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._proxies = parse_proxies(limits.trusted_proxies)
        self._taken = 0
        self._users: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()

    def find_seat(self, connection: HTTPConnection, user: str | None) -> Seat:
        """Return what `connection` would count as."""
        limits = self._limits
        address = None
        if limits.connections_per_address is not None:
            address = find_address(connection, self._proxies)
        return Seat(user if limits.connections_per_user is not None else None, address)

    def take(self, seat: Seat) -> None:
        """
        Count `seat` as taken.

        Raises:
            LimitExceeded: There is no room for it.
        """
        limits = self._limits
        self._check("connections", self._taken, limits.connections)
        if seat.user is not None:
            count = self._users[seat.user]
            self._check("connections_per_user", count, limits.connections_per_user)
        if seat.address is not None:
            count = self._addresses[seat.address]
            self._check("connections_per_address", count, limits.connections_per_address)
        self._count(seat, 1)

    def release(self, seat: Seat) -> None:
        """Give `seat` back."""
        self._count(seat, -1)

    def _check(self, limit: LimitName, count: int, maximum: int | None) -> None:
        if maximum is not None and count >= maximum:
            raise LimitExceeded(limit, maximum, self._limits.retry_after)

    def _count(self, seat: Seat, change: int) -> None:
        self._taken += change
        for counter, key in ((self._users, seat.user), (self._addresses, seat.address)):
            if key is not None:
                counter[key] += change
                if not counter[key]:
                    del counter[key]
