"""Clients that end their side of TLS alone see the same from `FanoutProtocol` as from uvicorn's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.uvicorn.cases import ANSWERS, closing
from tests.uvicorn.half_tls import HalfTls, open_half_tls
from tests.uvicorn.wire import answered
from tests.uvicorn.witness import ECHOES, FANOUT, STOCK, Witness
from wshub.testing import Opcode, frame, live_server, until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    Talk = Callable[[HalfTls], Awaitable[None]]

TEXT, CLOSE = Opcode.TEXT, Opcode.CLOSE
GOODBYE = answered(CLOSE, closing(4000, "enough"))


class Story(NamedTuple):
    """What client and app saw; also whether the server ended TLS, or only the connection."""

    received: bytes
    said_goodbye: bool
    saw: list[object]


async def tell(ws: str, path: str, talk: Talk, certificate: tuple[str, ssl.SSLContext]) -> Story:
    """Have a client talk to a server, and hear it to the end."""
    witness, (file, context) = Witness(), certificate
    async with (
        live_server(witness.app, ws=ws, ssl_certfile=file) as server,
        open_half_tls(server.ws + path, context) as wire,
    ):
        await talk(wire)
        await wire.read_to_the_end()
        await until(lambda: witness.saw)
    return Story(wire.received, wire.said_goodbye, witness.saw[0])


async def tell_alike(path: str, talk: Talk, certificate: tuple[str, ssl.SSLContext]) -> Story:
    """Return what is the same with uvicorn's own protocol."""
    ours = await tell(FANOUT, path, talk, certificate)
    assert ours == await tell(STOCK, path, talk, certificate)
    return ours


@pytest.mark.parametrize("path", ECHOES)
async def test_a_client_that_says_in_tls_that_it_says_no_more(
    path: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """It has heard all answers, and hears the same of the server's end."""

    async def talk(wire: HalfTls) -> None:
        await wire.send(frame(TEXT, b"a"))
        await wire.read(3)
        await wire.send_last(b"")

    ours = await tell_alike(path, talk, certificate)
    assert ours == (answered(TEXT, b"a"), True, ["a", (1005, "")])


@pytest.mark.parametrize("path", ECHOES)
async def test_a_client_that_says_so_together_with_its_last_message(
    path: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """The app gets the message. Its answer is lost: event loops end both sides of TLS at once."""

    async def talk(wire: HalfTls) -> None:
        await wire.send_last(frame(TEXT, b"a"))

    ours = await tell_alike(path, talk, certificate)
    assert ours == (b"", True, ["a", (1005, "")])


@pytest.mark.parametrize("path", ECHOES)
async def test_a_client_that_only_shuts_its_socket(
    path: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """Without a word of TLS: neither does the server say one."""

    async def talk(wire: HalfTls) -> None:
        await wire.send(frame(TEXT, b"a"))
        await wire.read(3)
        wire.shut()

    ours = await tell_alike(path, talk, certificate)
    assert ours == (answered(TEXT, b"a"), False, ["a", (1005, "")])


async def test_a_handler_that_returns_without_a_word(
    certificate: tuple[str, ssl.SSLContext],
) -> None:
    """The server says in TLS that it is the end, if not by a close frame, and is answered."""

    async def talk(wire: HalfTls) -> None:
        await wire.send(frame(TEXT, b"a"))
        await until(lambda: wire.said_goodbye)
        await wire.send_last(b"")

    ours = await tell_alike("/plain?do=return", talk, certificate)
    assert ours == (b"", True, ["a"])


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("path", ["/managed", "/plain"])
async def test_a_client_that_says_so_behind_its_answer_to_a_close(
    path: str, answer: str, certificate: tuple[str, ssl.SSLContext]
) -> None:
    """Whatever it answers, it hears no more than uvicorn's own says."""

    async def talk(wire: HalfTls) -> None:
        await wire.send(frame(TEXT, b"a"))
        assert await wire.read(len(GOODBYE)) == GOODBYE
        await wire.send_last(ANSWERS[answer])

    url = f"{path}?do=close&code=4000&reason=enough"
    ours = await tell_alike(url, talk, certificate)
    assert ours.saw == ["a", (4000, "enough")]
