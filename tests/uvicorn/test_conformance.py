"""The same clients see the same bytes from `FanoutProtocol` as from uvicorn's own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.uvicorn.cases import ANSWERS, CASES, LIMIT, TIGHT, TIGHT_LIMIT, Case, closing
from tests.uvicorn.wire import Head, answered, code_of, frames_of, open_wire
from tests.uvicorn.witness import ECHOES, FANOUT, MANAGED, STOCK, Witness
from wshub.testing import (
    DeadClient,
    Opcode,
    connect,
    frame,
    live_server,
    until,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


TEXT, CLOSE = Opcode.TEXT, Opcode.CLOSE


class Story(NamedTuple):
    """What client and app saw of a case."""

    head: Head
    received: bytes
    saw: list[object]


async def play(
    url: str,
    case: Case,
    witness: Witness,
    *,
    context: ssl.SSLContext | None = None,
    trickle: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Story:
    """Act as a case says; return what came of it, which is also what was to come."""
    ended = len(witness.saw)
    async with open_wire(url, headers, context=context) as wire:
        for sent, expected in case.talk:
            await (wire.trickle(sent) if trickle else wire.send(sent))
            assert await wire.read(len(expected)) == expected
        await wire.send(case.last)
        await wire.read_to_the_end()
    await until(lambda: len(witness.saw) > ended)
    received = frames_of(wire.received)
    assert len(received) == len(frames_of(b"".join(answer for _, answer in case.talk))) + (
        case.last != b""
    )
    assert received[-1].reserved == 0
    assert received[-1].frame.opcode == CLOSE
    assert code_of(received[-1].frame.payload) == case.code
    return Story(wire.head.without_ours(), wire.received, witness.saw[-1])


async def stories(
    cases: dict[str, Case], ws: str, *, settings: dict[str, Any] | None = None, **options: Any
) -> dict[str, Story]:
    """Play cases at every endpoint of one server."""
    witness, told = Witness(), {}
    async with live_server(
        witness.app, ws=ws, **{"ws_max_size": LIMIT, **(settings or {})}
    ) as server:
        for name, case in cases.items():
            for path in ECHOES:
                try:
                    told[f"{name} at {path}"] = await play(
                        server.ws + path, case, witness, **options
                    )
                except BaseException as error:  # pragma: no cover (where a case fails)
                    error.add_note(f"{name} at {path} of {ws}")
                    raise
    return told


@pytest.mark.parametrize("about", CASES)
async def test_it_does_the_same(about: str) -> None:
    """Client and app see the same, with a manager and without one."""
    assert await stories(CASES[about], FANOUT) == await stories(CASES[about], STOCK)


async def test_it_has_the_same_limit() -> None:
    """A message may have as many bytes, in however many fragments."""
    tight = {"ws_max_size": TIGHT_LIMIT}
    ours = await stories(TIGHT, FANOUT, settings=tight)
    assert ours == await stories(TIGHT, STOCK, settings=tight)


@pytest.mark.parametrize("about", [about for about in CASES if about != "too big"])
async def test_it_does_the_same_byte_by_byte(about: str) -> None:
    """What comes in pieces is as good as what comes at once."""
    small = {
        name: case
        for name, case in CASES[about].items()
        if case.talk and sum(len(sent) for sent, _ in case.talk) < 600
    }
    assert await stories(small, FANOUT, trickle=True) == await stories(small, STOCK, trickle=True)


# --- over TLS


@pytest.mark.parametrize("about", CASES)
async def test_it_does_the_same_over_tls(
    about: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """What is encrypted is the same."""
    path, context = certificate
    options: dict[str, Any] = {"settings": {"ssl_certfile": path}, "context": context}
    ours = await stories(CASES[about], FANOUT, **options)
    assert ours == await stories(CASES[about], STOCK, **options)


# --- the server closes


ENDS: dict[str, bytes] = {
    "do=close&code=4000&reason=enough": answered(CLOSE, closing(4000, "enough")),
    "do=close&code=1000": answered(CLOSE, closing(1000)),
    f"do=close&code=1001&reason={'r' * 123}": answered(CLOSE, closing(1001, "r" * 123)),
    "do=close&code=3000&reason=gr%C3%BC%C3%9Fe": answered(CLOSE, closing(3000, "grüße")),
    "do=return": answered(CLOSE, closing(1000)),
    "do=raise": answered(CLOSE, closing(1011, "internal error")),
}
"""How a managed handler may end its connection."""


async def closed_by_server(ws: str, path: str, answer: bytes, expected: bytes | None) -> Story:
    """Have the server close; answer, and shut the sending side."""
    witness = Witness()
    async with live_server(witness.app, ws=ws) as server, open_wire(server.ws + path) as wire:
        await wire.send(frame(TEXT, b"a"))
        if expected is not None:
            assert await wire.read(len(expected)) == expected
            await wire.send(answer)
            wire.shut()
        await wire.read_to_the_end()
        await until(lambda: witness.saw)
    return Story(wire.head, wire.received, witness.saw[0])


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("path", ["/managed", "/plain"])
async def test_it_closes_in_the_same_way(path: str, answer: str) -> None:
    """Whatever a client answers to a close, it hears no more than uvicorn's own says."""
    url, close = (
        f"{path}?do=close&code=4000&reason=enough",
        ENDS["do=close&code=4000&reason=enough"],
    )
    ours = await closed_by_server(FANOUT, url, ANSWERS[answer], close)
    assert ours == await closed_by_server(STOCK, url, ANSWERS[answer], close)
    assert ours.saw == ["a", (4000, "enough")]


@pytest.mark.parametrize("query", ENDS)
async def test_a_managed_handler_ends_in_the_same_way(query: str) -> None:
    """Each way to end is told to the client with the same frame, and is the last of it."""
    url, close = f"/managed?{query}", ENDS[query]
    answer = ANSWERS["another code"]
    ours = await closed_by_server(FANOUT, url, answer, close)
    assert ours == await closed_by_server(STOCK, url, answer, close)
    assert ours.received == close


@pytest.mark.parametrize(
    "query", ["do=return", "do=raise", "do=close&code=1006", f"do=close&reason={'r' * 124}"]
)
async def test_a_handler_without_a_manager_ends_in_the_same_way(query: str) -> None:
    """Without a manager nobody tells the client, as under uvicorn's own."""
    ours = await closed_by_server(FANOUT, f"/plain?{query}", b"", None)
    assert ours == await closed_by_server(STOCK, f"/plain?{query}", b"", None)
    assert ours.received == b""


@pytest.mark.parametrize("path", ECHOES)
async def test_a_shutdown_says_the_same(path: str) -> None:
    """1012, without an answer of the client."""
    told = []
    for ws in (FANOUT, STOCK):
        witness = Witness()
        async with live_server(witness.app, ws=ws) as server, open_wire(server.ws + path) as wire:
            await wire.send(frame(TEXT, b"a"))
            assert await wire.read(3) == answered(TEXT, b"a")
            server.uvicorn.should_exit = True
            await wire.read_to_the_end()
        told.append((wire.received, witness.saw))
    assert told[0] == told[1]
    assert told[0][0] == answered(TEXT, b"a") + answered(CLOSE, closing(1012))


# --- the client leaves


@pytest.mark.parametrize("path", MANAGED)
async def test_a_client_that_says_no_more_still_hears(path: str) -> None:
    """
    Its side is closed together with its last message, and the echo comes.

    Under uvicorn's own protocol it depends on the event loop whether a manager is in time.
    """
    told = await _say_no_more(FANOUT, path)
    assert told == (answered(TEXT, b"a"), [["a", (1005, "")]])


async def test_a_client_that_says_no_more_is_the_same_without_a_manager() -> None:
    """What uvicorn does for it is not ours."""
    assert await _say_no_more(FANOUT, ECHOES[-1]) == await _say_no_more(STOCK, ECHOES[-1])


async def _say_no_more(ws: str, path: str) -> tuple[bytes, list[list[object]]]:
    witness = Witness()
    async with live_server(witness.app, ws=ws) as server, open_wire(server.ws + path) as wire:
        await wire.send(frame(TEXT, b"a"))
        wire.shut()
        await wire.read_to_the_end()
        await until(lambda: witness.saw)
    return wire.received, witness.saw


@pytest.mark.parametrize("path", ECHOES)
async def test_a_reset_is_the_same_to_the_app(path: str) -> None:
    """The handler hears 1005 of it, and nobody else notices."""
    assert await _be_reset(FANOUT, path) == await _be_reset(STOCK, path) == ["a", (1005, "")]


async def _be_reset(ws: str, path: str) -> list[object]:
    witness = Witness()
    async with (
        live_server(witness.app, ws=ws) as server,
        connect(server.ws + path, compression=None) as other,
    ):
        async with DeadClient(server.ws + path) as dead:
            await dead.send_frame(TEXT, b"a")
            assert await dead.read(3) == answered(TEXT, b"a")
            if "broadcast" in path:
                assert await other.receive() == "a"
            dead.die()
            await until(lambda: witness.saw)
        assert await other.ask("b") == "b"
        return witness.saw[0]


# --- handshakes


HANDSHAKES: dict[str, tuple[str, dict[str, str], str]] = {
    "nothing special": ("/managed?do=echo", {}, "101"),
    "without a manager": ("/plain?do=echo", {}, "101"),
    "a subprotocol": (
        "/managed?do=echo&subprotocol=chat",
        {"Sec-WebSocket-Protocol": "superchat, chat"},
        "101",
    ),
    "a subprotocol that is not chosen": (
        "/managed?do=echo",
        {"Sec-WebSocket-Protocol": "superchat, chat"},
        "101",
    ),
    "a subprotocol without a manager": (
        "/plain?do=echo&subprotocol=chat",
        {"Sec-WebSocket-Protocol": "chat"},
        "101",
    ),
    "more headers": ("/managed?do=echo", {"X-One": "1", "Cookie": "a=b", "Origin": "null"}, "101"),
    "refused": ("/refused?how=close", {}, "403"),
    "refused with a response": ("/refused?how=response", {}, "418"),
    "refused without a word": ("/refused?how=nothing", {}, "500"),
    "refused by an error": ("/refused?how=raise", {}, "500"),
    "no such path": ("/nowhere?", {}, "403"),
    "no key": ("/managed?do=echo", {"Sec-WebSocket-Key": ""}, "400"),
    "an old version": ("/managed?do=echo", {"Sec-WebSocket-Version": "8"}, "400"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_handshake_is_answered_the_same(name: str) -> None:
    """Status, headers in their order, and the body."""
    path, headers, status = HANDSHAKES[name]
    told = []
    for ws in (FANOUT, STOCK):
        witness = Witness()
        async with (
            live_server(witness.app, ws=ws, headers=[("X-Server", "mine")]) as server,
            open_wire(server.ws + path, headers) as wire,
        ):
            if status == "101":
                await wire.send(frame(CLOSE, closing(1000)))
            await wire.read_to_the_end()
        told.append((wire.head, wire.received))
    assert told[0] == told[1]
    assert told[0][0].status.split()[1] == status
