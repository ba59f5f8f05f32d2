"""Starting an example from the command line."""

from __future__ import annotations

import errno
import importlib.util
import logging
import runpy
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import uvicorn

from examples.__main__ import main
from wshub.testing import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from tests.examples.conftest import Running

    Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take back what uvicorn does to its loggers when it runs in this process."""
    yield
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.fixture
def taken() -> Iterator[str]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("rooms", "ws?name=Ana&key=0123456789abcdef&room=lobby"),
        ("chat", "ws/1"),
        ("items", "items/foo/ws?token=t"),
        ("echo", "ws"),
    ],
)
async def test_ctrl_c_ends_it_with_tabs_open(run: Run, name: str, path: str) -> None:
    """An example says where it is, and Ctrl-C ends it quietly though a tab is open."""
    async with run(name, "--port", "0") as running:
        assert running.line.startswith(f"{name}: open http://127.0.0.1:")
        assert running.line.endswith("in two tabs, stop with Ctrl-C")
        async with connect(f"{running.ws}/{path}") as client:
            running.process.send_signal(signal.SIGINT)
            assert await running.ended() == (0, "")
            assert (await client.closed())[0] in {1001, 1012}


async def test_sigterm_ends_it(run: Run) -> None:
    """A process manager's SIGTERM ends it just as quietly."""
    async with run("chat", "--port", "0", "--ws", "wsproto") as running:
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == (0, "")


async def test_taken_port_is_one_line(run: Run, taken: str) -> None:
    """A taken port is one line that says what to do, exit code 1, and no traceback."""
    async with run("rooms", "--port", taken) as running:
        assert running.line == ""
        assert await running.ended() == (
            1,
            f"rooms: port {taken} is taken, choose another: --port 9000, or make demo PORT=9000\n",
        )


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost"), ("::1", "[::1]"), ("::", "localhost")],
)
def test_prints_an_address_that_a_browser_opens(
    host: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed address works on this machine, whichever address is listened on."""

    async def press_ctrl_c(_: uvicorn.Server) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(uvicorn.Server, "main_loop", press_ctrl_c)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["echo", "--host", host, "--port", "0"]) == 0
    assert capsys.readouterr().out.startswith(f"echo: open http://{shown}:")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "80x"], "'80x' is not a port, choose a number up to 65535"),
        (["--port", "65536"], "'65536' is not a port"),
        (["--port", "-1"], "'-1' is not a port"),
        (["--port", "0", "--host", "host.invalid"], "cannot listen on host.invalid port 0"),
        (["--port", "0", "--host", "." * 80], "cannot listen on ...."),
        (["--port", "0", "--ws", "nonsense"], "--ws nonsense cannot be loaded"),
        (["--port", "0", "--ws", "no.such:Thing"], "--ws no.such:Thing cannot be loaded"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with an argument: exit code 1 and one line on stderr that says it."""
    assert main(["echo", *arguments]) == 1
    out, stderr = capsys.readouterr()
    assert out == ""
    assert stderr.startswith(f"echo: {line}")
    assert stderr.count("\n") == 1


def test_privileged_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that only an administrator may use is one line, too."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert main(["echo", "--port", "80"]) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith("echo: port 80 needs more rights, choose one above 1023: --port 9000")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["uvicorn", "every WebSocket library"])
def test_missing_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without uvicorn, or without a WebSocket library for it, one line names the extra."""
    if missing == "uvicorn":
        monkeypatch.setitem(sys.modules, "uvicorn", None)
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["echo"]) == 1
    stderr = capsys.readouterr().err
    assert stderr.endswith("pip install 'wshub[examples]'\n")
    assert stderr.count("\n") == 1


def test_missing_package_of_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that needs more than the others says in one line what."""
    monkeypatch.delitem(sys.modules, "examples.auth.app", raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert main(["auth"]) == 1
    assert capsys.readouterr().err == "auth: jwt is not installed: pip install 'wshub[examples]'\n"


def test_unknown_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m examples` with a name that is none lists those there are."""
    monkeypatch.setattr(sys, "argv", ["examples", "roms"])
    monkeypatch.delitem(sys.modules, "examples.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("examples", run_name="__main__")
    assert caught.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("usage: python -m examples")
    assert "rooms" in stderr
