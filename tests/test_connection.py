"""The managed surface: one connection inside `async with manager.connection()`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.managed import ManagedApp, echo
from wshub import (
    ConcurrentReceive,
    Connection,
    ConnectionClosed,
    ConnectionManager,
    OutboxOptions,
)
from wshub.exceptions import policy_violation
from wshub.testing import connect, live_server, until


async def test_text_and_bytes_come_back_as_they_were(ws: str) -> None:
    """Text frames are str, binary frames are bytes, in both directions."""
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask("grüße") == "grüße"
        assert await client.ask(b"\x00\xff") == b"\x00\xff"
        assert await client.ask("") == ""


async def test_it_closes_with_1000_when_the_handler_returns(ws: str) -> None:
    """Need 27: a plain return is a normal closure, not 1006; what was sent still arrives."""

    async def greet(connection: Connection) -> None:
        await connection.send("bye")

    managed = ManagedApp(greet)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.receive() == "bye"
        assert await client.closed() == (1000, "")
        await until(lambda: managed.outcomes == [None])
        assert managed.manager.active_connections == []


async def test_an_error_closes_with_1011_and_goes_on(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Need 27: the peer learns 1011, no internals; the error is logged and reaches the server."""

    async def fail(connection: Connection) -> None:
        raise LookupError("secret")

    managed = ManagedApp(fail)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1011, "internal error")
        await until(lambda: managed.outcomes)
    assert isinstance(managed.outcomes[0], LookupError)
    assert "closing with 1011" in caplog.text
    assert "Exception in ASGI application" in caplog.text


async def test_a_websocket_exception_closes_with_its_own_code(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The code and reason of a WebSocketException reach the peer; nothing is logged as an error."""

    async def refuse(connection: Connection) -> None:
        raise policy_violation("no shouting")

    managed = ManagedApp(refuse)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1008, "no shouting")
        await until(lambda: managed.outcomes)
    assert isinstance(managed.outcomes[0], WebSocketException)
    assert "ERROR" not in caplog.text


async def test_a_websocket_exception_with_a_bad_code_closes_with_1011(ws: str) -> None:
    """Row 14: 1006 must not reach the wire; the server would drop the peer for it."""

    async def refuse(connection: Connection) -> None:
        raise WebSocketException(1006)

    managed = ManagedApp(refuse)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1011, "internal error")


async def test_that_the_peer_leaves_is_no_error(ws: str, caplog: pytest.LogCaptureFixture) -> None:
    """A loop over `receive()` ends the block quietly when the peer leaves."""

    async def loop(connection: Connection) -> None:
        while True:
            await connection.receive()

    managed = ManagedApp(loop)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            await client.send("hello")
            await client.close()
        await until(lambda: managed.outcomes)
    assert managed.outcomes == [None]
    assert "ERROR" not in caplog.text


async def test_someone_elses_disconnect_is_an_error(ws: str) -> None:
    """A WebSocketDisconnect that is not about this connection closes it with 1011."""

    async def confuse(connection: Connection) -> None:
        raise WebSocketDisconnect(1001)

    managed = ManagedApp(confuse)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert (await client.closed())[0] == 1011
        await until(lambda: managed.outcomes)
    assert isinstance(managed.outcomes[0], WebSocketDisconnect)


async def test_a_cancelled_handler_closes_with_1001(ws: str) -> None:
    """Cancelling the handler's task ends the connection cleanly and stays a cancellation."""

    async def cancel_itself(connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await connection.receive()

    managed = ManagedApp(cancel_itself)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert (await client.closed())[0] == 1001
        await until(lambda: managed.outcomes)
    assert isinstance(managed.outcomes[0], asyncio.CancelledError)


async def test_a_task_group_in_the_block_may_end_with_the_disconnect(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception group of nothing but the disconnect is no error either."""

    async def read_in_group(connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(connection.receive())

    managed = ManagedApp(read_in_group)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws"):
            await until(lambda: managed.opened)
        await until(lambda: managed.outcomes)
    assert managed.outcomes == [None]
    assert "ERROR" not in caplog.text


async def test_a_task_group_may_refuse_the_peer(ws: str) -> None:
    """A WebSocketException inside an exception group closes with its code."""

    async def refuse() -> None:
        raise policy_violation("from a task")

    async def refuse_in_group(connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())

    managed = ManagedApp(refuse_in_group)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1008, "from a task")


async def test_messages_are_never_overtaken(ws: str) -> None:
    """Promise 4: a hundred sends at once, and a broadcast after a send, arrive in that order."""

    async def send_much(connection: Connection) -> None:
        await asyncio.gather(*(connection.send(str(number)) for number in range(100)))
        for _ in range(100):
            sending = asyncio.create_task(connection.send("send"))
            await asyncio.sleep(0)
            await managed.manager.broadcast("broadcast")
            await sending

    managed = ManagedApp(send_much)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert [await client.receive() for _ in range(100)] == [str(n) for n in range(100)]
        assert [await client.receive() for _ in range(200)] == ["send", "broadcast"] * 100


async def test_every_method_says_that_it_is_over(ws: str) -> None:
    """After the peer left, each method raises ConnectionClosed with the same facts."""
    release = asyncio.Event()
    managed = ManagedApp(lambda _: release.wait())
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            await until(lambda: managed.opened)
            (connection,) = managed.opened
            assert connection.closed is None
            assert "open" in repr(connection)
            async with asyncio.timeout(5):
                await client.websocket.close(4001, "done")
        await until(lambda: connection.closed)
        for use in (
            lambda: connection.send("x"),
            connection.receive,
            lambda: connection.join("room"),
        ):
            with pytest.raises(ConnectionClosed) as caught:
                await use()
            assert (caught.value.code, caught.value.reason, caught.value.by) == (
                4001,
                "done",
                "peer",
            )
        with pytest.raises(ConnectionClosed):
            connection.send_nowait("x")
        with pytest.raises(ConnectionClosed):
            connection.spawn(asyncio.sleep(60))
        assert [message async for message in connection] == []
        assert str(connection.closed) == "connection closed by the peer with 4001 (done)"
        assert "closed 4001" in repr(connection)
        await connection.close()
        await connection.leave("room")
        connection.abort()
        release.set()


async def test_closing_twice_is_fine(ws: str) -> None:
    """Row 5: a second close, by whatever name, does nothing, and what was queued arrives."""

    async def close_often(connection: Connection) -> None:
        await connection.send("last")
        await connection.close(4000, "first")
        await connection.close(4001, "second")
        await connection.websocket.close()
        assert str(connection.closed) == "connection closed by the hub with 4000 (first)"

    managed = ManagedApp(close_often)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.receive() == "last"
        assert await client.closed() == (4000, "first")
        await until(lambda: managed.outcomes)
    assert managed.outcomes == [None]


async def test_abort_drops_the_peer_at_once(ws: str) -> None:
    """`abort()` leaves the registry at once, and the peer sees 1006."""

    async def drop(connection: Connection) -> None:
        await connection.receive()
        connection.abort()
        assert managed.manager.active_connections == []

    managed = ManagedApp(drop)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await client.send("drop me")
        assert (await client.closed())[0] == 1006


async def test_receive_can_time_out_without_losing_a_message(ws: str) -> None:
    """Need 21: a timeout is a TimeoutError, and the next message is not lost."""
    timed_out = asyncio.Event()

    async def wait_a_little(connection: Connection) -> None:
        with pytest.raises(TimeoutError):
            await connection.receive(timeout=0.01)
        timed_out.set()
        await connection.send(await connection.receive(timeout=5))

    managed = ManagedApp(wait_a_little)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await timed_out.wait()
        assert await client.ask("here") == "here"


async def test_two_readers_do_not_share_messages(ws: str) -> None:
    """Row 10: the second reader gets an error that names the fix, the first gets it all."""

    async def read_twice(connection: Connection) -> None:
        first = connection.spawn(connection.receive())
        await asyncio.sleep(0)
        with pytest.raises(ConcurrentReceive, match="receive in one task"):
            await connection.receive()
        await connection.send("ready")
        await connection.send(await first)

    managed = ManagedApp(read_twice)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.receive() == "ready"
        assert await client.ask("one") == "one"


async def test_a_fast_client_is_read_no_further_than_the_bound(ws: str) -> None:
    """Reading ahead stops at the bound and goes on when the handler does; nothing is lost."""
    release = asyncio.Event()

    async def take_later(connection: Connection) -> None:
        await release.wait()
        await echo(connection)

    managed = ManagedApp(take_later, ConnectionManager(read_ahead=3))
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        for number in range(20):
            await client.send(str(number))
        await until(lambda: managed.manager.statistics().received == 3)
        release.set()
        assert [await client.receive() for _ in range(20)] == [str(number) for number in range(20)]


async def test_what_was_taken_makes_room_to_read_on(ws: str) -> None:
    """The read-ahead bound is on what waits: more than it in all passes through."""
    managed = ManagedApp(echo, ConnectionManager(outbox=OutboxOptions(max_bytes=100)))
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        for number in range(50):
            assert await client.ask(f"message {number:4}") == f"message {number:4}"


async def test_unread_messages_are_counted(ws: str) -> None:
    """What was read ahead and never taken is counted when the connection ends."""
    release = asyncio.Event()
    managed = ManagedApp(lambda _: release.wait())
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await client.send("one")
        await client.send("two")
        await until(lambda: managed.manager.statistics().received == 2)
        release.set()
        await client.closed()
        await until(lambda: managed.outcomes)
    assert managed.manager.statistics().unread == 2


class Order(BaseModel):
    """What the client sends in these tests."""

    item: str
    count: int = 1


async def test_json_models_and_unions_are_validated(ws: str) -> None:
    """`iter_json` and `iter_model` yield values, models, and members of a union."""
    unions: TypeAdapter[Order | int] = TypeAdapter(Order | int)

    async def take(connection: Connection) -> None:
        await connection.send({"got": await anext(connection.iter_json())})
        await connection.send(await anext(connection.iter_model(Order)))
        await connection.send([await anext(connection.iter_model(unions))])
        await connection.send(memoryview(await anext(connection.iter_bytes())))
        await connection.send(await anext(connection.iter_text()))

    managed = ManagedApp(take)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask('[1, "zwölf"]') == '{"got":[1,"zwölf"]}'
        assert await client.ask('{"item": "tea"}') == '{"item":"tea","count":1}'
        assert await client.ask("7") == "[7]"
        assert await client.ask(b"raw") == b"raw"
        assert await client.ask("text") == "text"


@pytest.mark.parametrize("kind", ["iter_text", "iter_bytes", "iter_json", "iter_model"])
async def test_iterators_end_when_the_peer_leaves(ws: str, kind: str) -> None:
    """However the messages are taken, the loop simply ends."""

    async def take(connection: Connection) -> None:
        models = (int,) if kind == "iter_model" else ()
        async for message in getattr(connection, kind)(*models):
            await connection.send(message)

    managed = ManagedApp(take)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            message = b"1" if kind == "iter_bytes" else "1"
            assert await client.ask(message) == message
        await until(lambda: managed.outcomes == [None])


async def test_spawned_tasks_end_with_the_connection(ws: str) -> None:
    """Need 28: a spawned task runs beside the handler and is cancelled when the peer leaves."""
    ended = asyncio.Event()

    async def tick(connection: Connection) -> None:
        try:
            await connection.send("tick")
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def handle(connection: Connection) -> None:
        connection.spawn(tick(connection))
        await echo(connection)

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert await client.receive() == "tick"
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_handler_may_wait_for_what_it_spawned(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer leaves, the spawned task is cancelled, and the handler that awaits it just ends."""

    async def handle(connection: Connection) -> None:
        await connection.spawn(asyncio.sleep(3600))

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server:
        async with connect(f"{server.ws}/ws"):
            await until(lambda: managed.opened)
        await until(lambda: managed.outcomes == [None])
    assert "ERROR" not in caplog.text


async def test_a_spawned_task_that_fails_closes_with_1011(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a spawned task is logged, ends the connection, and ends the handler's loop."""

    async def fail() -> None:
        raise LookupError("in the background")

    async def handle(connection: Connection) -> None:
        connection.spawn(fail())
        await echo(connection)

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1011, "internal error")
        await until(lambda: managed.outcomes == [None])
    assert "in the background" in caplog.text


async def test_another_connections_end_fails_a_spawned_task(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ConnectionClosed of some other connection is an error like any other."""

    async def send_to_someone_who_left() -> None:
        raise ConnectionClosed(1000, "", "peer")

    async def handle(connection: Connection) -> None:
        connection.spawn(send_to_someone_who_left())
        await echo(connection)

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1011, "internal error")
    assert "failed" in caplog.text


async def test_a_spawned_task_may_close_the_connection(ws: str) -> None:
    """Also in its first step, which an eager event loop takes inside `spawn()`."""

    async def handle(connection: Connection) -> None:
        connection.spawn(connection.close(4000, "from a task"))
        await echo(connection)

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (4000, "from a task")
        await until(lambda: managed.outcomes == [None])


async def test_a_spawned_task_may_end_with_the_disconnect(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ConnectionClosed in a spawned task is how it learns of the end, not a failure."""

    async def listen(connection: Connection) -> None:
        try:
            await connection.receive()
        except asyncio.CancelledError:
            await connection.send("too late")

    async def handle(connection: Connection) -> None:
        connection.spawn(listen(connection))
        await asyncio.sleep(0)
        await connection.close()

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.closed() == (1000, "")
        await until(lambda: managed.outcomes == [None])
    assert caplog.records == [] or "ERROR" not in caplog.text


async def test_a_task_that_ignores_its_cancellation_is_named(
    ws: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stubborn spawned task does not hold up the end; a warning says that it stays."""
    monkeypatch.setattr("wshub._link.EVICTION_GRACE", 0.01)
    release = asyncio.Event()

    async def resist() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def handle(connection: Connection) -> None:
        connection.spawn(resist())
        await asyncio.sleep(0)

    managed = ManagedApp(handle)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await client.closed()
        await until(lambda: managed.outcomes)
        release.set()
    assert "ignores its cancellation" in caplog.text


async def test_state_subprotocol_and_headers_are_passed_on(ws: str) -> None:
    """The app's own object is `connection.state`; the handshake carries what was asked for."""
    seen: list[Any] = []
    manager = ConnectionManager()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        async with manager.connection(
            websocket, state={"n": 1}, subprotocol="chat", headers=[(b"x-hub", b"yes")]
        ) as connection:
            seen.append((connection.state["n"], connection.user, connection.websocket is websocket))

    async with (
        live_server(app, ws=ws, lifespan="off") as server,
        connect(server.ws, subprotocols=["chat", "other"]) as client,
    ):
        await client.closed()
        assert client.websocket.subprotocol == "chat"
        assert client.websocket.response is not None
        assert client.websocket.response.headers["x-hub"] == "yes"
    assert seen == [(1, None, True)]


async def test_a_server_that_shuts_down_ends_the_handlers(ws: str) -> None:
    """Need 9: uvicorn's 1012 is seen by a handler that only waits for messages."""
    managed = ManagedApp(echo)
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        await until(lambda: managed.opened)
        server.uvicorn.should_exit = True
        assert (await client.closed())[0] == 1012
        await until(lambda: managed.outcomes == [None])
    closed = managed.opened[0].closed
    assert closed is not None
    assert closed.by == "server"
