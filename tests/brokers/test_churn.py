"""Clients come and go as they like: what is subscribed on the broker is what has members."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.brokers.site import Site
from wshub.testing import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.brokers.kinds import Broker, Kind, OwnBroker
    from wshub import Connection

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
        async with AsyncExitStack() as clients:
            for number in range(connections):
                await clients.enter_async_context(sites[number % 2].connect())
            for site in sites:
                await site.has(connections // 2)
            members = [member for site in sites for member in site.managed.opened]
            for _ in range(LOOKS):
                end = time.monotonic() + seconds / LOOKS
                names = [f"room {number}" for number in range(rooms)]
                lives = [wander(member, names, dice, pause, end) for member in members]
                await asyncio.gather(*lives)
                await agree(broker, prefix, members)
                await all_hear(sites)
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


async def all_hear(sites: Sequence[Site]) -> None:
    """Say something in each room, and wait until each site has told it to all of its members."""
    counts = [Counter(room for one in site.managed.opened for room in one.rooms) for site in sites]
    sent = [site.manager.statistics().sent for site in sites]
    for room in counts[0] + counts[1]:
        await sites[0].manager.broadcast("anybody?", room=room)
    due = [before + count.total() for before, count in zip(sent, counts, strict=True)]
    await until(lambda: [site.manager.statistics().sent for site in sites] == due)


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
