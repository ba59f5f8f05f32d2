"""How much a manager takes on: connections, rooms and messages, and what those beyond hear."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.exceptions import WebSocketException
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

from tests.managed import ManagedApp, echo
from wshub import (
    AlreadyConnected,
    Connection,
    ConnectionClosed,
    ConnectionManager,
    LimitExceeded,
    Limits,
)
from wshub._token_bucket import TokenBucket
from wshub.rejections import RejectionHandler
from wshub.testing import FakeClock, FaultySink, RawClient, connect, live_server, until
from wshub.testing._uvicorn import Server

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.http11 import Response


def managed_with(limits: Limits, *, answer: str = "http", **options: Any) -> ManagedApp:
    """An app that echoes within `limits`, and says why it refuses."""
    managed = ManagedApp(echo, ConnectionManager(limits=limits, **options))
    managed.app.add_exception_handler(WebSocketException, RejectionHandler(answer))  # type: ignore[arg-type]
    return managed


async def refusal(url: str, **options: Any) -> Response:
    """Return the HTTP answer with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, **options).__aenter__()
    return refused.value.response


def forwarded_for(value: str) -> dict[str, Any]:
    """Options of a client whose proxy says that it comes from `value`."""
    return {"additional_headers": {"X-Forwarded-For": value}}


# --- the values


def make_limits(**options: Any) -> Limits:
    """Make limits that type checkers would refuse."""
    return Limits(**options)


@pytest.mark.parametrize(
    "field",
    [
        "connections",
        "connections_per_user",
        "connections_per_address",
        "rooms_per_connection",
        "message_bytes",
        "messages_per_second",
        "bytes_per_second",
        "burst",
        "retry_after",
    ],
)
def test_a_limit_is_a_positive_number(field: str) -> None:
    """Anything else is a ValueError where it is written, not in some handshake."""
    for bad in (0, -1, float("nan"), float("inf"), "5"):
        with pytest.raises(ValueError, match=f"{field} must be a positive number, not {bad!r}"):
            make_limits(**{field: bad})
    make_limits(**{field: 1})


def test_only_what_is_a_limit_may_be_none() -> None:
    """None is no limit; there is always a burst and a delay."""
    Limits(connections=None, rooms_per_connection=None, messages_per_second=None)
    for field in ("burst", "retry_after"):
        with pytest.raises(ValueError, match=f"{field} must be a positive number, not None"):
            make_limits(**{field: None})


def test_proxies_are_checked_where_they_are_written() -> None:
    """A proxy that is no address is a ValueError of the limits."""
    with pytest.raises(ValueError, match="trusted_proxies"):
        Limits(trusted_proxies=["nginx"])


# --- connections


async def test_too_many_connections_are_refused_with_503(ws: str) -> None:
    """Need 24: before accept, with Retry-After; once one has left there is room for the next."""
    managed = managed_with(Limits(connections=2, retry_after=7.2))
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as stays:
        async with connect(f"{server.ws}/ws") as leaves:
            assert await leaves.ask("in") == "in"
            response = await refusal(f"{server.ws}/ws")
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "8"
            assert response.body == b'{"code":1013,"detail":"too many connections"}'
        await until(lambda: managed.manager.statistics().connections == 1)
        async with connect(f"{server.ws}/ws") as next_one:
            assert await next_one.ask("in") == "in"
        assert await stays.ask("still here") == "still here"
    assert managed.manager.statistics().limited["connections"] == 1


async def test_too_many_connections_of_one_user_are_refused_with_429(ws: str) -> None:
    """Other users, and connections without a user, are not counted with them."""
    managed = managed_with(Limits(connections_per_user=1))
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws?user=ana") as ana,
        connect(f"{server.ws}/ws?user=ben") as ben,
        connect(f"{server.ws}/ws"),
        connect(f"{server.ws}/ws"),
    ):
        assert await ana.ask("in") == await ben.ask("in") == "in"
        response = await refusal(f"{server.ws}/ws?user=ana")
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "5"
        await ana.close()
        await until(lambda: managed.manager.statistics().users == 1)
        async with connect(f"{server.ws}/ws?user=ana") as ana_again:
            assert await ana_again.ask("in") == "in"


async def test_too_many_connections_of_one_address_are_refused_with_429(ws: str) -> None:
    """The proxy tells addresses apart; what a client writes before it changes nothing."""
    managed = managed_with(Limits(connections_per_address=1, trusted_proxies=["127.0.0.1"]))
    async with AsyncExitStack() as clients:
        server = await clients.enter_async_context(
            live_server(managed.app, ws=ws, proxy_headers=False)
        )
        url = f"{server.ws}/ws"
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"):
            client = await clients.enter_async_context(connect(url, **forwarded_for(address)))
            assert await client.ask(address) == address
        for same in ("192.0.2.1", "198.51.100.9, 192.0.2.2", "2001:db8:0:1:ffff::2"):
            assert (await refusal(url, **forwarded_for(same))).status_code == 429


async def test_a_header_of_an_untrusted_peer_does_not_multiply_its_seats(ws: str) -> None:
    """Without trusted proxies X-Forwarded-For is a stranger's claim."""
    managed = managed_with(Limits(connections_per_address=1))
    async with (
        live_server(managed.app, ws=ws, proxy_headers=False) as server,
        connect(f"{server.ws}/ws", **forwarded_for("192.0.2.1")) as client,
    ):
        assert await client.ask("in") == "in"
        spoofed = forwarded_for("192.0.2.2")
        assert (await refusal(f"{server.ws}/ws", **spoofed)).status_code == 429


async def test_a_server_that_looks_through_its_proxy_needs_no_trusted_proxies(ws: str) -> None:
    """Its own `--forwarded-allow-ips`, by default 127.0.0.1, has done it already."""
    managed = managed_with(Limits(connections_per_address=1))
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws", **forwarded_for("192.0.2.1")) as client,
    ):
        assert await client.ask("in") == "in"
        spoofed = forwarded_for("192.0.2.2, 192.0.2.1")
        assert (await refusal(f"{server.ws}/ws", **spoofed)).status_code == 429


async def test_behind_a_unix_socket_the_header_tells_addresses_apart(
    ws: str, tmp_path: Path
) -> None:
    """A peer on a Unix socket has no address; it counts by the header if "unix" is trusted."""
    managed = managed_with(Limits(connections_per_address=1, trusted_proxies=["unix"]))
    path = str(tmp_path / "s")
    config = uvicorn.Config(managed.app, ws=ws, uds=path, log_config=None, lifespan="off")
    server = Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        first = {"X-Forwarded-For": "192.0.2.1"}
        async with unix_connect(path, "ws://x/ws", additional_headers=first, proxy=None):
            await until(lambda: managed.opened)
            with pytest.raises(InvalidStatus):
                await unix_connect(path, "ws://x/ws", additional_headers=first, proxy=None)
            async with unix_connect(path, "ws://x/ws", proxy=None) as nameless:
                await nameless.send("nobody counts")
                assert await nameless.recv() == "nobody counts"
    finally:
        server.should_exit = True
        await running


async def test_without_a_handler_a_client_beyond_a_limit_gets_403_or_1013(ws: str) -> None:
    """Starlette's own answer is 403 before accept, and the code after it."""
    managed = ManagedApp(echo, ConnectionManager(limits=Limits(connections=1)))

    @managed.app.websocket("/accepted")
    async def accept_first(websocket: WebSocket) -> None:
        await websocket.accept()
        async with managed.manager.connection(websocket):
            raise AssertionError("there is no room")  # pragma: no cover

    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask("in") == "in"
        assert (await refusal(f"{server.ws}/ws")).status_code == 403
        async with connect(f"{server.ws}/accepted") as accepted:
            assert await accepted.closed() == (1013, "too many connections")
        assert await client.ask("still here") == "still here"


async def test_a_page_in_a_browser_hears_1013(ws: str) -> None:
    """`RejectionHandler("close")` accepts for a moment to say so; the seat stays refused."""
    managed = managed_with(Limits(connections=1), answer="close")
    async with live_server(managed.app, ws=ws) as server, connect(f"{server.ws}/ws") as client:
        assert await client.ask("in") == "in"
        async with connect(f"{server.ws}/ws") as refused:
            assert await refused.closed() == (1013, "too many connections")
        assert len(managed.opened) == 1


async def test_many_handshakes_at_once_do_not_overshoot(ws: str) -> None:
    """A handshake holds its seat from its start: not all of them find the last one free."""
    managed = managed_with(Limits(connections=5))
    async with live_server(managed.app, ws=ws) as server, AsyncExitStack() as clients:
        dials = [connect(f"{server.ws}/ws") for _ in range(20)]
        entering = [clients.enter_async_context(dial) for dial in dials]
        results = await asyncio.gather(*entering, return_exceptions=True)
        assert sum(isinstance(result, InvalidStatus) for result in results) == 15
        assert managed.manager.statistics().opened == 5


async def test_handshakes_that_wait_hold_their_seats() -> None:
    """The limit holds also while servers take their time to accept."""
    manager = ConnectionManager(limits=Limits(connections=3))
    gate = asyncio.get_running_loop().create_future()

    async def shake_hands() -> None:
        sink = FaultySink()
        sink.gate = gate
        async with manager.connection(sink.websocket):
            assert manager.statistics().connections <= 3

    tasks = [asyncio.create_task(shake_hands()) for _ in range(10)]
    await until(lambda: sum(task.done() for task in tasks) == 7)
    gate.set_result(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, LimitExceeded) for result in results) == 7
    assert manager.statistics().opened == 3


# --- seats that come back


async def test_a_client_that_vanishes_during_the_handshake_gives_its_seat_back(ws: str) -> None:
    """Row 15: it would otherwise be counted for ever."""
    manager = ConnectionManager(limits=Limits(connections=1))
    entered, go_on = asyncio.Event(), asyncio.Event()
    app = FastAPI()

    @app.websocket("/ws")
    async def hesitate(websocket: WebSocket) -> None:
        entered.set()
        await go_on.wait()
        async with manager.connection(websocket) as connection:
            await echo(connection)

    async with live_server(app, ws=ws) as server:
        async with RawClient(f"{server.ws}/ws", wait=False):
            await entered.wait()
        await until(lambda: not server.connections)
        go_on.set()
        await until(lambda: not server.uvicorn.server_state.tasks)
        async with connect(f"{server.ws}/ws") as client:
            assert await client.ask("in") == "in"


async def test_every_way_to_fail_gives_the_seat_back() -> None:
    """An accept that fails or is cancelled, a WebSocket that comes too late, a block that fails."""
    manager = ConnectionManager(limits=Limits(connections=1, connections_per_user=1))

    async def fail(sink: FaultySink, expected: type[BaseException], **options: Any) -> None:
        with pytest.raises(expected):
            async with manager.connection(sink.websocket, user="ana", **options):
                raise ZeroDivisionError

    lost = FaultySink()
    lost.fault = OSError("gone")
    await fail(lost, ZeroDivisionError)

    broken = FaultySink()
    broken.fault = KeyError("a bug in the server")
    await fail(broken, KeyError)

    accepted = FaultySink()
    await accepted.websocket.accept()
    await fail(accepted, AlreadyConnected, subprotocol="chat")

    await fail(FaultySink(), ZeroDivisionError)

    slow = FaultySink()
    slow.gate = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(fail(slow, asyncio.CancelledError))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await waiting

    async with manager.connection(FaultySink().websocket, user="ana") as connection:
        assert connection.closed is None
    assert manager.statistics().limited["connections"] == 0


async def test_an_evicted_peer_gives_its_seat_back_at_once() -> None:
    """Its handler may go on for a while; the next client need not wait for that."""
    manager = ConnectionManager(limits=Limits(connections=1))
    sink = FaultySink()
    async with manager.connection(sink.websocket):
        sink.fault = OSError("gone")
        await manager.broadcast("x")
        async with manager.connection(FaultySink().websocket) as connection:
            assert connection.closed is None
            assert manager.statistics().connections == 1
    async with manager.connection(FaultySink().websocket) as connection:
        assert connection.closed is None


async def test_disconnect_gives_the_seat_back_once() -> None:
    """The tutorial's `disconnect()`, twice, and the end of the connection release one seat."""
    manager = ConnectionManager(limits=Limits(connections=1))
    sink, other = FaultySink(), FaultySink()
    first = await manager.connect(sink.websocket)
    manager.disconnect(sink.websocket)
    manager.disconnect(sink.websocket)
    await first.close()
    second = await manager.connect(other.websocket)
    with pytest.raises(LimitExceeded):
        await manager.connect(FaultySink().websocket)
    await second.close()
    for finished in (sink, other):
        finished.events.put_nowait({"type": "websocket.disconnect", "code": 1000})


# --- rooms


async def test_a_join_beyond_the_limit_is_refused_and_the_rest_goes_on() -> None:
    """Being in a room already takes no place, leaving one makes room, others are not concerned."""
    manager = ConnectionManager(limits=Limits(rooms_per_connection=2))
    async with (
        manager.connection(FaultySink().websocket, rooms=["a", "b", "a"]) as connection,
        manager.connection(FaultySink().websocket, rooms=["c"]) as other,
    ):
        await connection.join("a")
        with pytest.raises(LimitExceeded) as refused:
            await manager.room("c").join(connection)
        assert (refused.value.limit, refused.value.maximum) == ("rooms_per_connection", 2)
        assert (refused.value.code, refused.value.status) == (1008, None)
        assert str(refused.value) == (
            "too many rooms: rooms_per_connection of Limits is 2; raise it, or close some"
        )
        assert connection.rooms == {"a", "b"}
        assert connection.closed is None
        await connection.leave("a")
        await connection.join("c")
        assert manager.room("c").members == [other, connection]
    assert manager.statistics().limited["rooms_per_connection"] == 1


async def test_without_a_limit_there_is_none() -> None:
    """None allows any number; by default 1024 are the most."""
    names = [str(number) for number in range(1025)]
    unlimited = ConnectionManager(limits=Limits(rooms_per_connection=None))
    async with unlimited.connection(FaultySink().websocket, rooms=names) as connection:
        assert len(connection.rooms) == 1025
    with pytest.raises(LimitExceeded):
        await ConnectionManager().connect(FaultySink().websocket, rooms=names)


async def test_a_client_that_asks_for_too_many_rooms(ws: str) -> None:
    """In the handshake it gets 403 without using a seat; by a message that nobody catches 1008."""

    async def join_all(connection: Connection) -> None:
        while True:
            await connection.join(str(await connection.receive()))

    limits = Limits(rooms_per_connection=1, connections=1)
    managed = managed_with(limits)
    managed.handler = join_all
    async with live_server(managed.app, ws=ws) as server:
        assert (await refusal(f"{server.ws}/ws?room=a&room=b")).status_code == 403
        async with connect(f"{server.ws}/ws?room=a") as client:
            await client.send("b")
            assert await client.closed() == (1008, "too many rooms")


# --- messages


def test_a_token_bucket_warns_before_it_closes() -> None:
    """It holds `burst` seconds' worth, warns once when overdrawn, and closes at as much debt."""
    bucket = TokenBucket(rate=2, burst=3, now=0)
    assert [bucket.take(1, 0) for _ in range(6)] == ["fine"] * 6
    assert [bucket.take(1, 0) for _ in range(6)] == ["warn"] + ["fine"] * 5
    assert bucket.take(1, 0) == "close"


def test_a_token_bucket_fills_in_time_up_to_its_capacity() -> None:
    """Who slows down is out of debt again, and warned again the next time."""
    bucket = TokenBucket(rate=2, burst=3, now=100)
    assert bucket.take(8, 100) == "warn"
    assert bucket.take(1, 100.5) == "fine"  # in debt still, and warned already
    assert bucket.take(1, 102) == "fine"  # out of debt
    assert bucket.take(1, 102) == "warn"
    assert bucket.take(6, 1000) == "fine"  # a long silence saves up no more than the burst
    assert bucket.take(1, 1000) == "warn"


def test_a_slow_rate_still_lets_one_message_through() -> None:
    """A bucket holds one token at least."""
    bucket = TokenBucket(rate=0.1, burst=1, now=0)
    assert [bucket.take(1, 0) for _ in range(3)] == ["fine", "warn", "close"]


async def test_a_client_that_sends_too_fast_is_warned_then_closed(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Need 23: up to the burst it is served, beyond it served and warned, then closed with 1008."""
    limits = Limits(messages_per_second=2, burst=2)
    managed = managed_with(limits, clock=FakeClock())
    async with (
        live_server(managed.app, ws=ws) as server,
        connect(f"{server.ws}/ws") as client,
        connect(f"{server.ws}/ws") as other,
    ):
        for number in range(8):
            assert await client.ask(f"{number}") == f"{number}"
            assert managed.manager.statistics().limited["messages_per_second"] == (number >= 4)
        await client.send("one too many")
        assert await client.closed() == (1008, "too many messages")
        assert managed.manager.statistics().limited["messages_per_second"] == 2
        assert await other.ask("undisturbed") == "undisturbed"
    name = managed.opened[0].id
    lines = [record.getMessage() for record in caplog.records if record.name == "wshub"]
    assert lines == [
        f"connection {name} reached the limit of messages_per_second: warned",
        f"connection {name} reached the limit of messages_per_second: closed",
    ]


async def test_a_client_that_slows_down_is_served_on() -> None:
    """Time pays the debt back."""
    clock, sink = FakeClock(), FaultySink()
    limits = Limits(messages_per_second=1, burst=1)
    manager = ConnectionManager(limits=limits, clock=clock, handler_grace=None)
    async with manager.connection(sink.websocket) as connection:
        for _ in range(5):
            sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
            sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
            assert [await connection.receive(), await connection.receive()] == ["x", "x"]
            await clock.advance(2)
    assert manager.statistics().limited["messages_per_second"] == 5
    assert manager.statistics().received == 10


async def test_bytes_are_limited_like_messages() -> None:
    """Few messages may be many bytes: text counts as UTF-8, as it came over the wire."""
    clock, sink = FakeClock(), FaultySink()
    manager = ConnectionManager(limits=Limits(bytes_per_second=5, burst=2), clock=clock)
    async with manager.connection(sink.websocket) as connection:
        sink.events.put_nowait({"type": "websocket.receive", "text": "\N{EURO SIGN}" * 3})
        await connection.receive()
        assert manager.statistics().limited["bytes_per_second"] == 0
        sink.events.put_nowait({"type": "websocket.receive", "bytes": bytes(11)})
        await connection.receive()
        assert manager.statistics().limited["bytes_per_second"] == 1
        sink.events.put_nowait({"type": "websocket.receive", "text": "x"})
        with pytest.raises(ConnectionClosed, match="closed by the hub with 1008"):
            await connection.receive()
    assert manager.statistics().limited["bytes_per_second"] == 2


async def test_a_message_that_is_too_long_closes_with_1009(ws: str) -> None:
    """Need 13: a limit of the app's own, in bytes of UTF-8; as long as that is fine."""
    managed = managed_with(Limits(message_bytes=6))
    async with live_server(managed.app, ws=ws) as server:
        for fine in ("123456", b"123456", "\N{EURO SIGN}" * 2):
            async with connect(f"{server.ws}/ws") as client:
                assert await client.ask(fine) == fine
        for too_long in ("1234567", bytes(7), "\N{EURO SIGN}" * 2 + "x"):
            async with connect(f"{server.ws}/ws") as client:
                await client.send(too_long)
                assert await client.closed() == (1009, "message too big")
    assert managed.manager.statistics().limited["message_bytes"] == 3


async def test_a_connection_is_closed_for_one_reason() -> None:
    """A message over several limits is counted and reported for the first."""
    limits = Limits(message_bytes=10, messages_per_second=1, bytes_per_second=1, burst=1)
    manager = ConnectionManager(limits=limits, clock=FakeClock())
    for texts, limit in (
        (["x" * 11, "x" * 10, "x" * 10], "message_bytes"),
        (["", "", "x" * 10, "x" * 10], "messages_per_second"),
    ):
        sink = FaultySink()
        async with manager.connection(sink.websocket) as connection:
            for text in texts:
                sink.events.put_nowait({"type": "websocket.receive", "text": text})
            await until(sink.events.empty)
            await until(lambda: connection.closed)
        assert sink.sent[-1]["code"] == (1009 if limit == "message_bytes" else 1008)
    limited = {name: n for name, n in manager.statistics().limited.items() if n}
    assert limited == {"message_bytes": 1, "messages_per_second": 2}


# --- the log


async def test_refusals_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One warning a minute for each limit: strangers can ask without end. The rest is at info."""
    caplog.set_level(logging.INFO, logger="wshub")
    clock = FakeClock()
    limits = Limits(connections=1, rooms_per_connection=1)
    manager = ConnectionManager(limits=limits, clock=clock, handler_grace=None)
    async with manager.connection(FaultySink().websocket, rooms=["a"]) as connection:
        for _ in range(2):
            for _ in range(5):
                with pytest.raises(LimitExceeded):
                    await manager.connect(FaultySink().websocket)
                with pytest.raises(LimitExceeded):
                    await connection.join("b")
            await clock.advance(60)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == 2 * [
        "a handshake reached the limit of connections: refused",
        f"connection {connection.id} reached the limit of rooms_per_connection: refused",
    ]
    assert len(caplog.records) == 20
    assert manager.statistics().limited["connections"] == 10
