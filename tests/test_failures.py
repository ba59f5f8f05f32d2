"""
The ways in which the tutorial's `ConnectionManager` fails, and tests that show that ours does not.

The rows are those that docstrings all over these tests name. Each is shown on uvicorn's three
WebSocket implementations, on asyncio and uvloop; rows 1, 5, 6 and 11 on hypercorn and granian too.

| row | what the tutorial's class, or the server below it, does |
| --- | --- |
| 1 | A peer that died while its handler was busy breaks everyone's broadcasts, and stays for ever |
| 3 | A peer that leaves during a broadcast makes the loop skip another |
| 4 | A second `disconnect()` is a ValueError |
| 5 | A send after the own close, or a second close, is a RuntimeError |
| 6 | A send to a peer that left is a WebSocketDisconnect, or a RuntimeError |
| 7 | `close()` in `except WebSocketDisconnect` raises another error, on some servers |
| 8 | Starlette's two state flags each tell half of how it ended |
| 9 | A receive after the end raises misleading errors; a loop that goes on after them spins |
| 10 | Of two tasks that receive, each gets every other message |
| 11 | A peer that does not read stops every broadcast |
| 12 | Binary where text is due is a KeyError, broken JSON another error; the peer sees 1006 |
| 13 | A message over the server's limit ends in 1009, or 1006 |
| 14 | A long close reason, or a code that may not be sent, is an error, or silently altered |
| 15 | A client that is gone before it is accepted is a bare OSError, or is accepted |
| 16 | A send before accept is a RuntimeError |
| 17 | What is raised before accept reaches the client as 403, another status or 500 |
| 18 | Starlette's TestClient behaves like no server |
| 19 | A close right behind large messages cuts them short |

Row 2 needs a uvicorn that is too old for us.
"""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from starlette.websockets import WebSocketDisconnect

from tests.managed import ManagedApp, echo
from wshub import Connection, ConnectionClosed, ConnectionManager, OutboxOptions
from wshub.testing import connect, live_server, refusal, until

TESTS = Path(__file__).parent

SPINS = 1_000_000
"""Turns of a loop that is cancelled long before, or else would starve everything else."""


def test_every_failure_has_a_test() -> None:
    """Each row of the table above is named in the docstring of a test."""
    assert __doc__ is not None
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", __doc__, re.MULTILINE)}
    assert rows == set(range(1, 20)) - {2}
    shown: set[int] = set()
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = re.match(r"\s*Rows? ([\d, and]+)", ast.get_docstring(node) or "")
                shown |= {int(number) for number in re.findall(r"\d+", first[1] if first else "")}
    assert rows <= shown


# Row 8.


async def hold_up(connection: Connection) -> None:
    """Take one message, so that a busy client is not read any further."""
    await connection.receive()
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "how",
    [
        "left",
        "reset",
        # With FanoutProtocol the end is seen before a send could fail.
        pytest.param("a send that failed", marks=pytest.mark.stock_server),
        "closed",
    ],
)
async def test_one_attribute_tells_that_it_is_over(ws: str, how: str) -> None:
    """
    Row 8: `closed` tells it, however it ended.

    After a send that failed, Starlette's `client_state` still says CONNECTED; after the peer's
    close frame, `application_state` does.
    """
    manager = ConnectionManager(read_ahead=1, handler_grace=0)
    managed = ManagedApp(hold_up, manager)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws?user=ann&room=tea") as client:
            await client.send("one")
            await until(lambda: manager.statistics().received == 1)
            (connection,) = managed.opened
            if how == "left":
                await client.close(4000)
            elif how == "reset":
                client.reset()
            elif how == "closed":
                await connection.close(4000)
            else:
                await client.send("two")
                await until(lambda: connection._link.is_behind)
                client.reset()
                await until(lambda: not server.connections)
                assert connection.closed is None
                await manager.broadcast("into the void")
                assert manager.statistics().evicted["write_failed"] == 1
            await until(lambda: connection.closed)
        assert connection.closed is not None
        assert connection.closed.by == ("hub" if how == "closed" else "peer")
        assert [message async for message in connection] in ([], ["two"])
        for use in (connection.send("x"), connection.join("milk"), connection.receive()):
            with pytest.raises(ConnectionClosed) as caught:
                await use
            assert str(caught.value) == str(connection.closed)
        figures = manager.statistics()
        assert (figures.connections, figures.rooms, figures.users) == (0, 0, 0)
        await until(lambda: managed.outcomes == [None])


# Row 9.


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_receiving_after_the_end(ws: str, how: str) -> None:
    """Row 9: each receive says how it ended, and loops end at once."""

    async def receive_on(connection: Connection) -> None:
        assert await connection.receive() == "go"
        if how == "closed":
            await connection.close(4000)
        for _ in range(3):
            with pytest.raises(ConnectionClosed):
                await connection.receive(timeout=5)
        for messages in (connection, connection.iter_text(), connection.iter_json()):
            assert [message async for message in messages] == []
        with pytest.raises(WebSocketDisconnect):
            await connection.websocket.receive_text()

    managed = ManagedApp(receive_on)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await client.send("go")
        if how == "reset":
            client.reset()
        await until(lambda: managed.outcomes)
    assert managed.outcomes == [None]


@pytest.mark.parametrize("use", ["receive", "send"])
async def test_a_handler_that_swallows_the_end_freezes_nobody(ws: str, use: str) -> None:
    """Row 9: `except Exception: continue` spins, but others are served, and it is cancelled."""
    swallowed = 0

    async def swallow(connection: Connection) -> None:
        nonlocal swallowed
        if connection.user == "other":
            await echo(connection)
        while swallowed < SPINS:  # pragma: no branch (it is cancelled before)
            try:
                await (connection.receive() if use == "receive" else connection.send("x"))
            except ConnectionClosed:
                swallowed += 1

    managed = ManagedApp(swallow, ConnectionManager(handler_grace=0.2))
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=other") as other,
    ):
        async with connect(f"{server.ws}/ws"):
            await until(lambda: len(managed.opened) == 2)
        await until(lambda: swallowed)
        assert await other.ask("still served?") == "still served?"
        await until(lambda: managed.outcomes == [None])
    assert 1 < swallowed < SPINS


# Row 17.


def picky_app(manager: ConnectionManager) -> FastAPI:
    """An app that turns clients away in each of the ways that there are, unless they are `fine`."""
    app = FastAPI()

    def turn_away(path: str, error: Exception) -> None:
        def guard(*, fine: bool = False) -> None:
            if not fine:
                raise error

        @app.websocket(path, dependencies=[Depends(guard)])
        async def greet(websocket: WebSocket) -> None:
            async with manager.connection(websocket) as connection:
                await connection.send("welcome")

    turn_away("/policy", WebSocketException(1008))
    turn_away("/unauthorized", HTTPException(401))
    turn_away("/broken", LookupError("no internals"))

    @app.websocket("/closed")
    async def close(websocket: WebSocket) -> None:
        await websocket.close(4001)

    @app.websocket("/forgetful")
    async def forget(websocket: WebSocket) -> None:
        pass

    return app


async def test_whoever_is_turned_away_is_not_registered(ws: str) -> None:
    """Row 17: the client gets an HTTP status that tells no internals, the manager nobody."""
    manager = ConnectionManager()
    async with live_server(picky_app(manager), ws=ws) as server:
        for path, statuses in {
            "/policy": {403},
            "/policy?fine=maybe": {403},
            "/closed": {403},
            "/nowhere": {403},
            # The oldest Starlette that we support knows HTTPException on HTTP routes only.
            "/unauthorized": {401, 500},
            "/broken": {500},
            "/forgetful": {500},
        }.items():
            refused = await refusal(server.ws + path)
            assert refused.status in statuses, path
            assert b"internals" not in refused.body
        assert manager.statistics().opened == 0
        await until(lambda: not server.connections)
        for path in ("/policy", "/unauthorized", "/broken"):
            async with connect(f"{server.ws}{path}?fine=yes") as client:
                assert await client.receive() == "welcome"


# Row 19.


@pytest.mark.parametrize("end", ["return", "close", "dismiss"])
async def test_a_close_behind_large_messages_cuts_nothing_short(ws: str, end: str) -> None:
    """Row 19: all that was sent arrives, and then the close code, though the client is slow."""
    messages = [letter * 3_000_000 for letter in "abcde"]  # more than the system's buffers take

    async def send_and_end(connection: Connection) -> None:
        await connection.receive()
        for message in messages:
            await connection.send(message)
        if end == "close":
            await connection.close(4000, "that was it")
        elif end == "dismiss":
            await managed.manager.disconnect_user("ann", code=4000, reason="that was it")

    options = OutboxOptions(max_bytes=20_000_000)
    managed = ManagedApp(send_and_end, ConnectionManager(outbox=options))
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ann", max_size=None, compression=None) as client,
    ):
        client.stop_reading()
        await client.send("go")
        await until(lambda: managed.manager.statistics().queued)
        client.read_on()
        assert [await client.receive() for _ in messages] == messages
        assert await client.closed() == ((1000, "") if end == "return" else (4000, "that was it"))
        await until(lambda: managed.outcomes == [None])
