"""The server of the soak, in a process of its own: an app that keeps account of all it sends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import socket
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, WebSocket

from wshub import (
    Connection,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionManager,
    ConnectionOpened,
    MessagesDropped,
    OutboxFull,
    OutboxOptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wshub import Event


@dataclass
class Account:
    """
    What became of the messages for one connection.

    Attributes:
        token: What its client calls it.
        handed: Messages that the app handed to its outbox.
        dropped: Those of them that hooks told of, by reason.
        code: The code with which it ended.
        by: Who ended it.
        evicted: Why its peer was cut off, or None.
    """

    token: str
    handed: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"overflow": 0, "closed": 0})
    code: int | None = None
    by: str | None = None
    evicted: str | None = None


class Soak:
    """
    An app that does what its clients say.

    Every message begins with a number, and the numbers rise: a client sees by them that nothing
    came twice or in another order.
    """

    def __init__(self) -> None:
        self.manager = ConnectionManager(
            outbox=OutboxOptions(max_messages=64, max_bytes=1_000_000, send_timeout=2.0),
            read_ahead=16,
            idle_timeout=5.0,
            handler_grace=2.0,
            hooks=[self.note],
        )
        self.accounts: dict[Connection, Account] = {}
        self.ended: list[Account] = []
        self.handed = 0
        self.number = 0
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.app.add_api_websocket_route("/ws/{token}", self.handle)
        self.app.add_api_route("/ended", self.take_ended)
        self.app.add_api_route("/state", self.state)

    def note(self, event: Event) -> None:
        """Keep the accounts."""
        if isinstance(event, ConnectionOpened):
            token = event.connection.websocket.path_params["token"]
            self.accounts[event.connection] = Account(token)
        elif isinstance(event, MessagesDropped):
            self.accounts[event.connection].dropped[event.reason] += event.count
        else:
            assert isinstance(event, ConnectionEnded)
            account = self.accounts[event.connection]
            account.code, account.by = event.closed.code, event.closed.by
            account.evicted = event.evicted

    async def handle(self, websocket: WebSocket, user: str) -> None:
        """Do as a client says until it leaves, then settle its account."""
        with ExitStack() as end:
            async with self.manager.connection(websocket, user=user) as connection:
                end.callback(self.settle, connection)
                self.tell(connection, "welcome")
                async for text in connection.iter_text():
                    verb, *words = text.split()
                    if verb == "return":
                        break
                    await self.obey(connection, verb, *words)

    def settle(self, connection: Connection) -> None:
        """Put an account where the test finds it: all that was handed to it is sent or dropped."""
        self.ended.append(self.accounts.pop(connection))

    async def obey(self, connection: Connection, verb: str, *words: str) -> None:
        """Do what a client said."""
        if verb in {"say", "others"}:
            exclude = [connection] if verb == "others" else []
            for _ in range(int(words[2])):
                await self.broadcast(words[0], int(words[1]), exclude)
        elif verb in {"user", "all"}:
            audience = [other for other in self.open() if verb == "all" or other.user == words[0]]
            text = self.entry(verb, audience)
            sending = (
                self.manager.broadcast(text)
                if verb == "all"
                else self.manager.send_to_user(words[0], text)
            )
            await sending
        else:
            actions: dict[str, Callable[..., object]] = {
                "echo": partial(self.tell, connection),
                "join": connection.join,
                "leave": connection.leave,
                "dismiss": partial(self.manager.disconnect_user, code=4001),
                "spawn": lambda: connection.spawn(asyncio.sleep(60)),
                "bye": partial(connection.close, 4000),
                "abort": connection.abort,
            }
            done = actions[verb](*words)
            if asyncio.iscoroutine(done):
                await done

    def open(self) -> list[Connection]:
        """Return the connections that a broadcast to all reaches."""
        return [connection for connection in self.accounts if connection.closed is None]

    def entry(self, text: str, audience: Iterable[Connection]) -> str:
        """Enter into their accounts that each of `audience` is handed a message; return it."""
        self.number += 1
        for connection in audience:
            self.accounts[connection].handed += 1
            self.handed += 1
        return f"{self.number} {text}"

    async def broadcast(self, room: str, size: int, exclude: list[Connection]) -> None:
        """Send to a room, and enter it for those who are in it at this moment."""
        members = [other for other in self.manager.room(room).members if other not in exclude]
        text = self.entry("x" * size, members)
        await self.manager.broadcast(text, room=room, exclude=exclude)

    def tell(self, connection: Connection, text: str) -> None:
        """Send to one connection, and enter it unless it was not taken."""
        if connection.closed is None:
            try:
                connection.send_nowait(f"{self.number + 1} {text}")
            except OutboxFull:  # pragma: no cover (a matter of timing)
                return
            except ConnectionClosed:  # pragma: no cover (a matter of timing)
                pass  # it was found dead by this message, which is dropped and counted
            self.entry(text, [connection])

    async def take_ended(self) -> list[dict[str, Any]]:
        """Return the accounts that were settled since the last time."""
        ended, self.ended = self.ended, []
        return [asdict(account) for account in ended]

    async def state(self) -> dict[str, Any]:
        """Return the figures, and what has to be as it was when all have gone."""
        give_back_memory()
        return {
            **self.manager.statistics()._asdict(),
            "handed": self.handed,
            "unsettled": len(self.accounts),
            "alive": sum(isinstance(thing, Connection) for thing in gc.get_objects()),
            "tasks": len(asyncio.all_tasks()),
            "files": count_files(),
            "blocks": sys.getallocatedblocks(),
            "resident": measure_memory(),
        }


def count_files() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def give_back_memory() -> None:
    """Let go of garbage, and of what the allocator keeps of it, where it can be told to."""
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def measure_memory() -> int:
    """Return how many bytes of memory are resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(ws: str, loop: str) -> None:
    """Serve on a free port, which is the first thing that is printed, until told to stop."""
    options: dict[str, Any] = {"ws": ws, "loop": loop, "log_level": "critical"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Connections inherit it: who does not read blocks soon, as over a slow network.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(Soak().app, **options)).run(sockets=[listener])


if __name__ == "__main__":  # pragma: no branch (it is run, never imported)
    main(*sys.argv[1:])
