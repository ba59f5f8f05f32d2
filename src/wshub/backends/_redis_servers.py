"""Where the Redis servers are: one, the master that sentinels name, or the masters of a cluster."""

from __future__ import annotations

from binascii import crc_hqx
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from wshub.backends._deadline import Limit
from wshub.backends._redis_link import RedisLink, ask, drop

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from wshub.backends._redis_link import Commands, Connection

__all__ = ("Address", "Cluster", "Maker", "Sentinels", "Servers", "Single", "slot_of")

SLOTS = 16384
"""Parts of the key space of a cluster, and of the names of its channels."""

SEED_TIMEOUT = 0.5
"""Seconds that each sentinel, or seed of a cluster, has to answer: the next may know, too."""


class Address(NamedTuple):
    """Of one server."""

    host: str
    port: int


class Maker(NamedTuple):
    """
    Makes connections.

    Attributes:
        kind: redis-py's class of connections.
        options: Its arguments.
        commands: The kind of pub/sub.
    """

    kind: type
    options: Mapping[str, object]
    commands: Commands

    def __repr__(self) -> str:
        return f"<Maker of {self.kind.__name__}>"  # and no password

    def make(self, address: Address | None = None, **options: object) -> Connection:
        """Return a connection, not connected yet."""
        where = {} if address is None else address._asdict()
        return cast("Connection", self.kind(**{**self.options, **where, **options}))

    def link(self, address: Address | None = None) -> RedisLink:
        """Return a link, not connected yet."""
        return RedisLink(lambda: self.make(address), self.commands)


class Servers(Protocol):
    """Finds the servers, anew at each connect: an outage may have changed which they are."""

    links: list[RedisLink]
    """All that `connect()` opened, also if it failed."""

    async def connect(self) -> None:
        """Connect to all servers."""
        ...

    def link_of(self, channel: bytes) -> RedisLink:
        """Return the link to the server that a channel belongs to."""
        ...

    def spread(self, channel: str) -> Sequence[str]:
        """Return a channel for each server, beginning with the one that is given."""
        ...


class Single:
    """One server, at the address of the URL."""

    def __init__(self, maker: Maker) -> None:
        self.links: list[RedisLink] = []
        self._maker = maker

    async def connect(self) -> None:
        """Connect to it."""
        await self._connect_to(await self._find())

    def link_of(self, channel: bytes) -> RedisLink:  # noqa: ARG002  (there is but one)
        """Return the link to it."""
        return self.links[0]

    def spread(self, channel: str) -> Sequence[str]:
        """Return the channel that is given."""
        return [channel]

    async def _find(self) -> Address | None:
        return None

    async def _connect_to(self, address: Address | None) -> RedisLink:
        link = self._maker.link(address)
        self.links.append(link)
        await link.connect()
        return link


class Sentinels(Single):
    """The server that sentinels call the master of a service."""

    def __init__(
        self,
        maker: Maker,
        sentinels: Sequence[Address],
        service: str,
        options: Mapping[str, object],
    ) -> None:
        super().__init__(maker)
        self._sentinels = deque(sentinels)
        self._service = service
        self._options = options

    async def connect(self) -> None:
        """Ask one sentinel for the master, and connect to it."""
        with _turning(self._sentinels):
            await super().connect()

    async def _find(self) -> Address:
        name = self._service.encode()
        failure: Exception | None = None
        for sentinel in tuple(self._sentinels):
            connection = self._maker.make(sentinel, **self._options)
            try:
                answer = await _ask(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
            except Exception as error:  # another one may be better off
                failure = error
            else:
                match answer:
                    case [bytes(host), bytes(port)]:
                        return Address(host.decode(), int(port))
                    case _:
                        failure = None
            self._sentinels.rotate(-1)
        raise ConnectionError(f"no sentinel knows the master of {self._service!r}") from failure

    async def _connect_to(self, address: Address | None) -> RedisLink:
        link = await super()._connect_to(address)
        role = cast("list[object]", await link.ask(b"ROLE"))
        if role[0] != b"master":
            raise ConnectionError(f"{address} is not the master yet, or no longer")
        return link


class Cluster:
    """The masters of a cluster; each channel belongs to one of them, as keys do."""

    def __init__(self, maker: Maker, seeds: Sequence[Address]) -> None:
        self.links: list[RedisLink] = []
        self._maker = maker
        self._seeds = deque(seeds)
        self._owners: list[RedisLink | None] = []

    async def connect(self) -> None:
        """Ask one node for the others, and connect to all masters."""
        with _turning(self._seeds):
            await self._connect()

    async def _connect(self) -> None:
        ranges = await self._find()
        links: dict[Address, RedisLink] = {}
        self._owners = [None] * SLOTS
        for start, end, address in ranges:
            link = links.get(address)
            if link is None:
                link = links[address] = self._maker.link(address)
                self.links.append(link)
                await link.connect()
            self._owners[start : end + 1] = [link] * (end + 1 - start)

    def link_of(self, channel: bytes) -> RedisLink:
        """Return the link to the master of the channel's slot."""
        slot = slot_of(channel)
        link = self._owners[slot]
        if link is None:
            raise ConnectionError(f"no node of the cluster has slot {slot}")
        return link

    def spread(self, channel: str) -> Sequence[str]:
        """Return a channel for each master."""
        found: dict[RedisLink, str] = {}
        number = 0
        while len(found) < len(self.links):
            name = f"{channel}:{number}" if number else channel
            found.setdefault(self.link_of(name.encode()), name)
            number += 1
        return list(found.values())

    async def _find(self) -> list[tuple[int, int, Address]]:
        failure: Exception | None = None
        for seed in tuple(self._seeds):
            try:
                slots = await _ask(self._maker.make(seed), b"CLUSTER", b"SLOTS")
            except Exception as error:  # another one may be better off
                failure = error
                self._seeds.rotate(-1)
            else:
                return _read_slots(slots, seed)
        raise ConnectionError("no node of the cluster answers") from failure


def slot_of(channel: bytes) -> int:
    """Return the slot of a channel: a CRC of its name, or of what is in braces in it."""
    _, brace, rest = channel.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    return crc_hqx(tag if brace and end and tag else channel, 0) % SLOTS


def _read_slots(answer: object, seed: Address) -> list[tuple[int, int, Address]]:
    ranges: list[tuple[int, int, Address]] = []
    for start, end, master, *_ in cast("list[tuple[int, int, list[bytes | int], object]]", answer):
        host, port = cast("tuple[bytes | None, int]", tuple(master[:2]))
        # A node that does not know its own address leaves it out.
        ranges.append((start, end, Address(host.decode() if host else seed.host, port)))
    return ranges


@contextmanager
def _turning(addresses: deque[Address]) -> Generator[None, None, None]:
    """Begin with the next server from now on if what the first one knows is of no use."""
    try:
        yield
    except BaseException:  # it may be silent, too, until somebody loses patience
        addresses.rotate(-1)
        raise


async def _ask(connection: Connection, *command: bytes) -> object:
    """Return one server's answer to one question."""
    try:
        async with Limit(SEED_TIMEOUT):
            await connection.connect()
            return await ask(connection, *command)
    finally:
        drop(connection)
