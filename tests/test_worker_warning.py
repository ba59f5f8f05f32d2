"""Several workers and a backend in memory: each is told that it does not reach the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from wshub import ConnectionManager
from wshub._servers import _warn, count_workers
from wshub.auth import Tickets
from wshub.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


@pytest.mark.parametrize(
    ("command", "environment", "workers"),
    [
        ("/venv/bin/uvicorn main:app --workers 4", {}, 4),
        ("/venv/bin/uvicorn main:app --workers=4", {}, 4),
        ("/site-packages/uvicorn/__main__.py main:app --workers 2", {}, 2),
        ("/venv/bin/uvicorn main:app", {"WEB_CONCURRENCY": "3"}, 3),
        ("/venv/bin/uvicorn main:app --workers 1", {"WEB_CONCURRENCY": "3"}, 1),
        ("/venv/bin/uvicorn main:app --workers 4 --reload", {}, 1),
        ("/venv/bin/uvicorn main:app --workers", {}, 1),
        ("/venv/bin/uvicorn main:app --workers many", {}, 1),
        ("/venv/bin/uvicorn main:app", {}, 1),
        ("/venv/bin/fastapi run --workers 4 main.py", {}, 4),
        ("/venv/bin/gunicorn -k uvicorn_worker.UvicornWorker -w 4 main:app", {}, 4),
        ("/venv/bin/gunicorn -w4 main:app", {}, 4),
        ("/venv/bin/gunicorn main:app", {"GUNICORN_CMD_ARGS": "--workers=5 -b 'a b'"}, 5),
        ("/venv/bin/gunicorn main:app", {"WEB_CONCURRENCY": "6"}, 6),
        ("/venv/bin/hypercorn -w 4 main:app", {}, 4),
        ("/venv/bin/granian --interface asgi main:app", {"GRANIAN_WORKERS": "2"}, 2),
        ("/venv/bin/uvicorn.exe main:app --workers 2", {}, 2),
        ("manage.py --workers 4", {"WEB_CONCURRENCY": "4"}, 1),
        ("/site-packages/pytest/__main__.py -w 4", {}, 1),
        ("", {"WEB_CONCURRENCY": "4"}, 1),
    ],
)
def test_the_command_of_a_server_tells_the_number(
    command: str, environment: dict[str, str], workers: int
) -> None:
    """Only of a server that is known; its variable counts where there is no option."""
    assert count_workers(command.split(), environment) == workers


@pytest.fixture
def unwarned() -> Generator[None, None, None]:
    _warn.cache_clear()
    yield
    _warn.cache_clear()


@pytest.mark.usefixtures("unwarned")
def test_it_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of managers, however many there are, and of tickets."""
    monkeypatch.setattr(sys, "argv", ["/venv/bin/uvicorn", "main:app", "--workers", "2"])
    for _ in range(3):
        ConnectionManager()
        Tickets()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    texts = [record.getMessage() for record in caplog.records]
    assert all("this is one of 2 workers" in text for text in texts)
    assert "pass a backend that they share" in texts[0]
    assert "others refuse its tickets; pass keys that they share" in texts[1]


@pytest.mark.usefixtures("unwarned")
def test_nothing_is_said_of_one_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Nor where nobody knows."""
    ConnectionManager()
    assert caplog.records == []


UVICORN = "Application startup complete"
HYPERCORN = "Running on"
PROGRAM = ("tests.worker_program",)


@pytest.mark.parametrize(
    ("command", "started", "processes", "warnings"),
    [
        pytest.param(
            ("uvicorn", "tests.waiting_app:app", "--port", "PORT", "--workers", "2"),
            *(UVICORN, 2, 2),
            id="the command says two",
        ),
        pytest.param((*PROGRAM, "PORT", "2"), UVICORN, 2, 2, id="the program says two"),
        pytest.param((*PROGRAM, "PORT", "1"), UVICORN, 1, 0, id="the program says one"),
        pytest.param((*PROGRAM, "PORT", "2", "FOLDER"), UVICORN, 1, 0, id="the program reloads"),
        pytest.param(
            ("hypercorn", "tests.waiting_app:app", "--bind", "127.0.0.1:PORT", "-c", "FOLDER/toml"),
            *(HYPERCORN, 2, 2),
            id="the file of hypercorn says two",
        ),
    ],
)
def test_each_worker_says_it_once(
    tmp_path: Path, command: Sequence[str], started: str, processes: int, warnings: int
) -> None:
    """If there are several, whatever asked the server for them."""
    port, log = free_port(), tmp_path / "log"
    (tmp_path / "toml").write_text("workers = 2")
    words = [word.replace("PORT", str(port)).replace("FOLDER", str(tmp_path)) for word in command]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=Path(__file__).parents[1],
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_until(lambda: log.read_text().count(started) == processes, 30)
        assert log.read_text().count("one of 2 workers") == warnings
    finally:
        process.terminate()
        process.wait(20)
