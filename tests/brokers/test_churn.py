"""Clients come and go as they like: what is subscribed on the broker is what has members."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import Site
from wshub.testing import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.brokers.kinds import Broker, Kind, OwnBroker
    from wshub import Connection
    from wshub.testing import Client

LONG = pytest.mark.timeout(180)

LOOKS = 6
"""Times that the broker is looked at."""


async def check_churn(
    kind: Kind,
    broker: Broker,
    prefix: str,
    *,
    rooms: int,
    connections: int,
    seconds: float,
    pause: float,
) -> None:
    """Let connections of two workers join and leave at random, and look at the broker."""
    dice = random.Random(prefix)  # noqa: S311  (no secret; shown if it fails)
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(Site(kind.make(broker.url, prefix=prefix)).running())
            for _ in range(2)
        ]
        async with AsyncExitStack() as connected:
            clients = [
                await connected.enter_async_context(sites[number % 2].connect())
                for number in range(connections)
            ]
            for site in sites:
                await site.has(connections // 2)
            members = [member for site in sites for member in site.managed.opened]
            for member in members:
                await member.send(member.id)
            ears = {await client.receive(): client for client in clients}
            for look in range(LOOKS):
                end = time.monotonic() + seconds / LOOKS
                names = [f"room {number}" for number in range(rooms)]
                lives = [wander(member, names, dice, pause, end) for member in members]
                await asyncio.gather(*lives)
                await agree(broker, prefix, members)
                await all_hear(sites[look % 2], members, ears)
            for member in members[::2]:
                for room in member.rooms:
                    await member.leave(room)
            await agree(broker, prefix, members)
        await agree(broker, prefix, members)
        assert all(site.outages == [] for site in sites)
        assert broker.subscriptions(prefix) == 1  # that for everyone
    await until(lambda: broker.subscriptions(prefix) == 0)


async def wander(
    member: Connection, rooms: Sequence[str], dice: random.Random, pause: float, end: float
) -> None:
    """Join and leave rooms."""
    while time.monotonic() < end:
        room = dice.choice(rooms)
        if room in member.rooms or dice.random() < len(member.rooms) / 6:
            await member.leave(room)
        else:
            await member.join(room)
        await asyncio.sleep(pause * dice.random())


async def agree(broker: Broker, prefix: str, members: Sequence[Connection]) -> None:
    """Wait until the broker has one subscription for each room with members, and for everyone."""
    rooms = set().union(*(member.rooms for member in members))
    await until(lambda: broker.subscriptions(prefix) == 1 + len(rooms))


async def all_hear(
    speaker: Site, members: Sequence[Connection], ears: Mapping[str | bytes, Client]
) -> None:
    """Say something in each room: each of its members hears it once, and nobody else does."""
    for room in set().union(*(member.rooms for member in members)):
        await speaker.manager.broadcast(room, room=room)
    await speaker.manager.broadcast("that was all")
    for member in members:
        heard: list[str | bytes] = []
        while "that was all" not in heard:
            heard.append(await ears[member.id].receive())
        assert sorted(heard[:-1]) == sorted(member.rooms)


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("rooms", "connections", "seconds", "pause"),
    [
        pytest.param(20, 20, 1.5, 0.001, id="a few who are quick"),
        pytest.param(200, 500, 60, 0.5, id="a crowd", marks=[pytest.mark.slow, LONG]),
    ],
)
async def test_rooms_begin_and_end_all_the_time(
    kind: Kind,
    own_broker: OwnBroker,
    prefix: str,
    rooms: int,
    connections: int,
    seconds: float,
    pause: float,
) -> None:
    """However often, no subscription is lost, and none is left."""
    await check_churn(
        kind,
        own_broker,
        prefix,
        rooms=rooms,
        connections=connections,
        seconds=seconds,
        pause=pause,
    )
