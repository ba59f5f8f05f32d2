"""The clients of the soak: each lives as its seed says, and counts what it gets."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed

from wshub import CloseCode
from wshub.testing import Client, HalfOpenClient, Opcode, RawClient, StalledClient, connect, frame

ROOMS = ("tea", "milk", "beer", "wine", "mead")
USERS = tuple(f"user{number}" for number in range(12))

ENDINGS = {
    # Those who read to the end, which the server brings about.
    "bye": 7,
    "return": 4,
    # Those who leave, one way or the other.
    "leave": 4,
    "reset": 4,
    "abort": 2,
    # Those who never read.
    "stall": 4,
    "flood": 2,
    "fall silent": 3,
    # Those who mean harm.
    "send garbage": 2,
    "send half a handshake": 1,
}
"""How clients end, and how many of 33."""

COMMANDS = {
    "echo {tag}": 8,
    "join {room}": 8,
    "leave {room}": 3,
    "say {room} {size} 1": 12,
    "say {room} {size} 10": 1,
    "others {room} {size} 1": 4,
    "user {user}": 4,
    "all": 1,
    "spawn": 2,
    "dismiss {user}": 1,
    "rest": 2,
}
"""What they do before, and how many of 46 times. Whoever rests does not read for a while."""

MOST = 40
"""Things that one client does, at most."""

PAUSE = 0.1
"""Seconds between two of them, on average."""


@dataclass
class Life:
    """
    One client.

    Attributes:
        token: What the server calls it.
        ending: How it ends, unless somebody ends it before.
        received: Messages that it got.
        last: Number of the last one.
        goodbye: The code of the server's close frame, if it got that without leaving itself.
        waited: Seconds that it waited for the slowest answer, if it looks at that.
    """

    token: str
    ending: str
    received: int = 0
    last: int = 0
    goodbye: int | None = None
    waited: float = 0.0

    def take(self, message: str | bytes) -> str:
        """Count a message, which must come after the last one; return what it says."""
        number, _, text = str(message).partition(" ")
        assert int(number) > self.last
        self.last = int(number)
        self.received += 1
        return text


class Crowd:
    """
    Clients of one server that come and go, as a fixed seed says.

    Attributes:
        lives: All that there ever were, by token.
    """

    def __init__(self, server: str, *, size: int, seed: int) -> None:
        self.lives: dict[str, Life] = {}
        self._server = server
        self._size = size
        self._seed = seed

    async def churn(self, seconds: float) -> None:
        """Live for so many seconds, then let everyone end in its own way."""
        self._over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._size):
                group.create_task(self._live_on())
            group.create_task(self._stand_by())
            await asyncio.sleep(seconds)
            self._over.set()

    async def _live_on(self) -> None:
        """Live one life after the other."""
        while not self._over.is_set():
            token = str(len(self.lives))
            dice = random.Random(f"{self._seed} {token}")  # noqa: S311  (to be repeated)
            life = self.lives[token] = Life(token, choose(dice, ENDINGS))
            url = f"{self._server}/ws/{token}?user={dice.choice(USERS)}"
            # It may have been cut off for what it did, or dismissed.
            with suppress(ConnectionError, ConnectionClosed):
                await self._live(life, url, dice)

    async def _live(self, life: Life, url: str, dice: random.Random) -> None:
        if life.ending == "stall":
            async with StalledClient(url) as raw:
                room, count = dice.choice(ROOMS), dice.choice([6, 40])
                await raw.send_bytes(commands(f"join {room}", f"say {room} 20000 {count}"))
                await self._pause(dice.uniform(1, 4))
        elif life.ending == "flood":
            async with RawClient(url) as raw:
                await raw.send_bytes(commands(*["echo flood"] * 200))
                await self._pause(dice.uniform(0, 3))
        elif life.ending == "fall silent":
            async with HalfOpenClient(url) as raw:
                await raw.send_bytes(commands(f"join {dice.choice(ROOMS)}"))
                await self._pause(dice.uniform(0, 7))
                raw.shut()
        elif life.ending == "send garbage":
            async with RawClient(url) as raw:
                await raw.send_bytes(commands("join tea") + dice.randbytes(dice.randint(20, 2000)))
                await self._pause(dice.uniform(0, 1))
        elif life.ending == "send half a handshake":
            _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            writer.write(b"GET /ws/")
            await self._pause(dice.uniform(0, 3))
            writer.close()
        else:
            compression = dice.choice(["deflate", None])
            async with connect(url, max_size=None, compression=compression) as client:
                await self._talk(client, life, dice)

    async def _talk(self, client: Client, life: Life, dice: random.Random) -> None:
        """Say this and that, then end it; read until the end, whoever brings it about."""
        async with asyncio.TaskGroup() as group:
            group.create_task(read(client, life))
            with suppress(ConnectionClosed):
                for _ in range(dice.randint(1, MOST)):
                    await self._say_something(client, dice)
                    await self._pause(dice.expovariate(1 / PAUSE))
                if life.ending == "leave":
                    await client.close()
                elif life.ending == "reset":
                    client.reset()
                else:
                    await client.send(life.ending)

    async def _say_something(self, client: Client, dice: random.Random) -> None:
        command = choose(dice, COMMANDS).format(
            tag=dice.random(),
            room=dice.choice(ROOMS),
            size=dice.choice([10, 100, 1000, 10_000]),
            user=dice.choice(USERS),
        )
        if command == "rest":
            client.stop_reading()
            await self._pause(dice.uniform(0, 0.3))
            client.read_on()
        else:
            await client.send(command)

    async def _stand_by(self) -> None:
        """Ask for an echo all the time, and note how long the slowest took."""
        token = f"bystander-{len(self.lives)}"
        life = self.lives[token] = Life(token, "bye")
        async with connect(f"{self._server}/ws/{token}?user=bystander") as client:
            while not self._over.is_set():
                asked = time.monotonic()
                await client.send(f"echo {asked}")
                while life.take(await client.receive()) != str(asked):
                    pass
                life.waited = max(life.waited, time.monotonic() - asked)
                await self._pause(PAUSE)
            await client.send("bye")
            await read(client, life)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when it is over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)


async def read(client: Client, life: Life) -> None:
    """Take messages until the connection has ended."""
    with suppress(ConnectionClosed):
        async for message in client.websocket:
            life.take(message)
    if life.ending != "leave" and client.websocket.close_code != CloseCode.ABNORMAL_CLOSURE:
        life.goodbye = client.websocket.close_code


def choose(dice: random.Random, weights: dict[str, int]) -> str:
    """Return one of the keys, each as often as its weight says."""
    (choice,) = dice.choices([*weights], [*weights.values()])
    return choice


def commands(*texts: str) -> bytes:
    """Return text messages as they are on the wire."""
    return b"".join(frame(Opcode.TEXT, text.encode()) for text in texts)
