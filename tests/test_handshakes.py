"""A flood of handshakes ends before routes and dependencies."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from uvicorn.server import ServerState
from websockets.exceptions import InvalidMessage

from wshub import _address_rate
from wshub.handshakes import HandshakeLimit
from wshub.testing import FakeClock, connect, live_server, refusal, until
from wshub.uvicorn_http import limit_connections

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send


class Door:
    """
    A limited app that notes who came through.

    Attributes:
        came: The addresses.
        told: What the others were sent.
    """

    def __init__(self, **options: Any) -> None:
        self.came: list[str] = []
        self.told: list[Message] = []
        self.limit = HandshakeLimit(self._app, **options)

    async def knock(self, address: str | None, *, kind: str = "websocket", via: str = "") -> None:
        scope: dict[str, Any] = {
            "type": kind,
            "path": "/ws",
            "headers": [(b"x-forwarded-for", via.encode())] if via else [],
            "client": (address, 4711) if address else None,
        }
        await self.limit(scope, self._receive, self._send)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came.append(scope["client"][0] if scope["client"] else "")

    async def _receive(self) -> Message:
        raise AssertionError("nobody receives")  # pragma: no cover

    async def _send(self, event: Message) -> None:
        self.told.append(event)


async def test_an_address_has_a_rate_and_a_burst(
    fake_clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that knocks too often is refused, and only one warning a minute says so."""
    monkeypatch.setattr("wshub.auth.refusal._quiet_until", {})
    caplog.set_level(logging.WARNING, "wshub")
    door = Door(per_second=2, burst=3, clock=fake_clock)
    for _ in range(5):
        await door.knock("192.0.2.7")
    assert len(door.came) == 3
    assert door.told == [{"type": "websocket.close", "code": 1013}] * 2
    await door.knock("192.0.2.8")
    await door.knock("192.0.2.7", kind="http")
    assert len(door.came) == 5
    await fake_clock.advance(1)
    for _ in range(5):
        await door.knock("192.0.2.7")
    assert len(door.came) == 7
    await fake_clock.advance(3600)
    for _ in range(5):
        await door.knock("192.0.2.7")
    assert len(door.came) == 10
    (record,) = caplog.records
    assert record.getMessage() == (
        "refused websocket '/ws' from 192.0.2.7: too many handshakes from this address"
    )


async def test_addresses_behind_a_proxy(fake_clock: FakeClock) -> None:
    """A trusted proxy is looked through; IPv6 counts by network; no address is not counted."""
    door = Door(burst=1, trusted_proxies=["10.0.0.0/8"], clock=fake_clock)
    for address, via in (
        ("10.0.0.1", "192.0.2.7"),
        ("10.0.0.1", "192.0.2.8"),
        ("10.0.0.1", "192.0.2.7"),
        ("192.0.2.9", "192.0.2.10"),
        ("192.0.2.9", "192.0.2.11"),
        ("2001:db8::1", ""),
        ("2001:db8::2", ""),
        (None, ""),
        (None, ""),
    ):
        await door.knock(address, via=via)
    assert door.came == ["10.0.0.1"] * 2 + ["192.0.2.9", "2001:db8::1", "", ""]


async def test_it_forgets_who_was_silent_longest(
    fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many addresses are counted."""
    monkeypatch.setattr(_address_rate, "MAX_ADDRESSES", 2)
    door = Door(burst=1, clock=fake_clock)
    for address in ("a", "b", "a", "c", "b", "a"):
        await door.knock(f"192.0.2.{ord(address)}")
    assert "".join(chr(int(address.split(".")[3])) for address in door.came) == "abcba"


async def test_on_a_server(ws: str) -> None:
    """A refused handshake is answered 403, without a word about an error."""
    app = FastAPI()
    app.add_middleware(HandshakeLimit, burst=1)

    @app.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)

    @app.get("/")
    async def get() -> str:
        return "here"

    async with live_server(app, ws=ws) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert (await client.closed())[0] == 4000
        assert (await refusal(f"{server.ws}/ws")).status == 403
        async with httpx.AsyncClient() as http:
            assert (await http.get(server.http)).json() == "here"


@pytest.mark.parametrize(
    ("options", "text"), [({"per_second": 0}, "per_second"), ({"burst": 0}, "burst")]
)
def test_what_is_no_limit(options: dict[str, Any], text: str) -> None:
    """Mistakes are told when it is made."""
    with pytest.raises(ValueError, match=text):
        Door(**options)


async def test_connections_that_are_dropped_before_they_are_read(
    ws: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An address has a burst of connections of any kind; uvicorn goes on as if nothing had come."""
    app = FastAPI()

    @app.websocket("/ws")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)

    limited = limit_connections(per_second=0.001, burst=2)
    async with live_server(app, ws=ws, http=limited) as server:
        async with connect(f"{server.ws}/ws") as client:
            assert (await client.closed())[0] == 4000
        async with httpx.AsyncClient() as http:
            assert (await http.get(server.http)).status_code == 404
        for _ in range(2):
            with pytest.raises((ConnectionError, InvalidMessage)):
                await connect(f"{server.ws}/ws").__aenter__()
        await until(lambda: server.connections == 0)
    warnings = [record.getMessage() for record in caplog.records if record.name == "wshub"]
    assert warnings == ["dropped a connection from 127.0.0.1: too many of this address"]


class Mapped(asyncio.Transport):
    """A connection of an IPv4 client to a socket for both kinds of addresses."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (f"::ffff:{address}", 4711, 0, 0)})
        self.dropped = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def abort(self) -> None:
        self.dropped = True


def test_clients_of_a_socket_for_both_kinds_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are counted by their IPv4 addresses, and not all as one network."""
    monkeypatch.setattr("wshub.uvicorn_http._find_protocol", lambda: asyncio.Protocol)
    limited = limit_connections(burst=1, trusted_proxies=["198.51.100.0/24"])
    dropped = []
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "198.51.100.1", "198.51.100.1"):
        transport = Mapped(address)
        limited().connection_made(transport)
        dropped.append(transport.dropped)
    assert dropped == [False, False, True, False, False]


async def test_connections_that_are_not_counted(tmp_path: Path) -> None:
    """Those of a trusted proxy, and those without an address."""
    app = FastAPI()
    trusting = limit_connections(burst=1, trusted_proxies=["127.0.0.0/8", "unix"])
    async with live_server(app, http=trusting) as server:
        for _ in range(3):
            async with httpx.AsyncClient() as http:
                assert (await http.get(server.http)).status_code == 404

    config = uvicorn.Config(app, http=limit_connections(burst=1), log_config=None)
    config.load()
    path = str(tmp_path / "socket")
    state = ServerState()
    listening = await asyncio.get_running_loop().create_unix_server(
        lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
        path,
    )
    async with listening:
        for _ in range(3):
            transport = httpx.AsyncHTTPTransport(uds=path)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                assert (await http.get("/")).status_code == 404


@pytest.mark.parametrize(
    ("options", "text"), [({"per_second": -1}, "per_second"), ({"burst": 0}, "burst")]
)
def test_what_is_no_limit_on_connections(options: dict[str, Any], text: str) -> None:
    """Mistakes are told when it is made."""
    with pytest.raises(ValueError, match=text):
        limit_connections(**options)


def test_a_missing_uvicorn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for that server alone."""
    monkeypatch.setitem(sys.modules, "uvicorn.protocols.http.auto", None)
    with pytest.raises(ImportError, match="pip install uvicorn"):
        limit_connections()
