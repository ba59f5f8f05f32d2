"""The command `wshub publish`, as a shell runs it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.brokers.kinds import KINDS
from tests.brokers.site import Site
from wshub import cli

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.brokers.kinds import Broker, Kind

PROGRAM = str(Path(sys.executable).with_name("wshub"))

pytestmark = pytest.mark.one_loop


class Outcome(NamedTuple):
    """How a run of the command ended."""

    code: int
    out: str
    error: str


async def wshub(*arguments: str, stdin: bytes = b"", **environment: str) -> Outcome:
    """Run the command."""
    done = await asyncio.to_thread(
        subprocess.run,
        [PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@asynccontextmanager
async def site_of(kind: Kind, broker: Broker, prefix: str) -> AsyncGenerator[Site, None]:
    async with Site(kind.make(broker.url, prefix=prefix)).running() as site:
        yield site


SIMPLE = [kind for kind in KINDS if not kind.options]


@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_it_publishes_to_the_connections_of_an_app(
    kind: Kind, broker: Broker, prefix: str
) -> None:
    """To everyone, to a room, to a user; JSON from the command line or standard input, or text."""
    async with (
        site_of(kind, broker, prefix) as site,
        site.connect("user=ann&room=lobby") as ann,
        site.connect() as bob,
    ):
        await site.has(2)
        to = ("publish", "--url", broker.url, "--prefix", prefix)
        quiet = Outcome(0, "", "")
        assert await wshub(*to, "--room", "lobby", '{"text": "hi"}') == quiet
        assert await wshub(*to, "--user", "ann", ' "for ann" ') == quiet
        assert await wshub(*to, "--room", "lobby", "-", stdin='[1, 2.50, "ä"]\n'.encode()) == quiet
        assert await wshub(*to, "--text", "--room", "lobby", " {as it is ") == quiet
        options = ("--prefix", prefix, "--text", "the end")
        assert await wshub("publish", *options, WSHUB_URL=broker.url) == quiet
        heard = ['{"text": "hi"}', '"for ann"', '[1, 2.50, "ä"]', " {as it is ", "the end"]
        assert [await ann.receive() for _ in heard] == heard
        assert await bob.receive() == "the end"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (['{"text": '], "the message is not JSON: Expecting value: line 1 column"),
        (["[NaN]"], "the message is not JSON: NaN is none of its numbers"),
        (["-"], "what was read is not UTF-8: "),
        (["--room", "a", "--user", "b", "{}"], "--room and --user do not go together"),
        (["--room", "", "{}"], "invalid room name: it is empty"),
        (["--user", "a\nb", "{}"], "invalid user id: it has control characters in it"),
        (["--prefix", "a.b", "{}"], "prefix must be 1 to 64 letters"),
        (["--text", b"\xff".decode("utf-8", "surrogateescape")], "cannot encode a message"),
        (["--url", "carrier-pigeon://s3cret@loft", "{}"], "no backend has URLs that begin with"),
        (["--url", "app:s3cret@localhost", "{}"], "no backend has URLs that begin with ''"),
        (["--url", "redis://:s3cret@host:port/0", "{}"], "a host and port of this URL cannot"),
        (["--url", "postgresql://a:s3cret@host:99999/db", "{}"], "a port cannot be read"),
        (["--url", "nats://a:s3cret@host?speed=9", "{}"], "does not know the option 'speed'"),
        (["--url", "memory://", "{}"], "MemoryBackend reaches no other process"),
    ],
)
async def test_what_makes_no_sense_is_one_line_and_two(
    arguments: list[str], problem: str, unused_tcp_port: int
) -> None:
    """Exit code 2 is a mistake of who typed it; nothing is published, no password repeated."""
    url = f"redis://:s3cret@127.0.0.1:{unused_tcp_port}/0"
    outcome = await wshub("publish", *arguments, stdin=b"\xff", WSHUB_URL=url)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.error.startswith("wshub publish: ")
    assert problem in outcome.error
    assert outcome.error.count("\n") == 1
    assert "s3cret" not in outcome.error


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "nats"])
async def test_no_server_is_one_line_and_one(scheme: str, unused_tcp_port: int) -> None:
    """Exit code 1: it was right, and did not work."""
    url = f"{scheme}://app:s3cret@127.0.0.1:{unused_tcp_port}"
    outcome = await wshub("publish", "--url", url, "{}")
    assert outcome.code == 1
    assert outcome.out == ""
    assert "cannot publish now: " in outcome.error
    assert outcome.error.count("\n") == 1
    assert "s3cret" not in outcome.error


@pytest.mark.parametrize("kind", SIMPLE, ids=lambda kind: kind.name, scope="session", indirect=True)
async def test_a_server_that_refuses_is_one_line_and_one(kind: Kind, broker: Broker) -> None:
    """With what it refuses, and no password."""
    for refusal in kind.refusals[:1]:
        outcome = await wshub("publish", "--url", refusal(broker.url), "{}")
        assert outcome.code == 1
        assert "cannot start: it refuses " in outcome.error
        assert outcome.error.count("\n") == 1
        assert "s3cret" not in outcome.error


async def test_help_says_what_it_takes() -> None:
    """And so does a call without what it needs."""
    outcome = await wshub("publish", "--help")
    assert outcome.code == 0
    for word in ("--url", "WSHUB_URL", "--room", "--user", "--prefix", "--text"):
        assert word in outcome.out
    outcome = await wshub("publish", "{}", WSHUB_URL="")
    assert outcome.code == 2
    assert "--url" in outcome.error


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with exit code 1."""
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "wshub._command", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == "wshub: the command wshub needs typer; pip install 'wshub[cli]'"
