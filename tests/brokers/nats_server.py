"""A real NATS server as a process of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.ports import free_port
from wshub.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Generator

PROGRAM = shutil.which("nats-server", path=Path(sys.executable).parent) or shutil.which(
    "nats-server"
)
"""It comes with the extra `test`, where there is a wheel of it."""

CONFIGURATION = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{directory}" }}
accounts {{
  SYSTEM {{ users: [{{ user: system, password: secret }}] }}
  APP {{ jetstream: enabled, users: [{{ user: app, password: "p@ss/word" }}] }}
}}
system_account: SYSTEM
no_auth_user: app
"""


class NatsSocket:
    """A client of a few lines, so that what tests see does not depend on what they test."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 4222), timeout=5)
        self._file = self._socket.makefile("rb")
        options: dict[str, Any] = {"verbose": False, "headers": True, "no_responders": True}
        if parts.username is not None:
            options |= {"user": unquote(parts.username), "pass": unquote(parts.password or "")}
        self.send(f"CONNECT {json.dumps(options)}\r\n".encode())
        self.settle()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def settle(self) -> list[tuple[str, bytes]]:
        """Wait until the server has done all; return the messages that came meanwhile."""
        self.send(b"PING\r\n")
        found = []
        while (message := self.read()) is not None:
            found.append(message)
        return found

    def read(self) -> tuple[str, bytes] | None:
        """Return the next message; None: the server has answered a PING."""
        while True:
            words = self._file.readline().split()
            match words:
                case [b"PONG"]:
                    return None
                case [b"MSG" | b"HMSG" as kind, subject, _, *_, size]:
                    data = self._file.read(int(size) + 2)[:-2]
                    head = int(words[-2]) if kind == b"HMSG" else 0
                    return subject.decode(), data[head:]
                case [b"INFO", *_]:
                    continue
                case _:
                    raise ConnectionError(words)

    def ask(self, subject: str, question: object = None) -> Any:
        """Return the answer to a request."""
        body = b"" if question is None else json.dumps(question).encode()
        inbox = f"_INBOX.{secrets.token_hex(8)}"
        self.send(f"SUB {inbox} 1\r\nUNSUB 1 1\r\n".encode())
        self.send(f"PUB {subject} {inbox} {len(body)}\r\n".encode() + body + b"\r\n")
        answer = self.read()
        assert answer is not None
        return json.loads(answer[1])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextmanager
def connected(url: str) -> Generator[NatsSocket, None, None]:
    client = NatsSocket(url)
    try:
        yield client
    finally:
        client.close()


class NatsAdmin:
    """
    What an administrator sees and does of a NATS server.

    Attributes:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Nothing: it is somebody else's."""

    def cut_connections(self) -> None:
        """Close the connections of all other clients, as the user of the system's account."""
        parts = urlsplit(self.url)
        with connected(f"nats://system:secret@{parts.hostname}:{parts.port}") as system:
            answer = system.ask("$SYS.REQ.SERVER.PING.CONNZ")
            for connection in answer["data"]["connections"]:
                with suppress(ConnectionError):
                    subject = f"$SYS.REQ.SERVER.{answer['server']['id']}.KICK"
                    system.ask(subject, {"cid": connection["cid"]})

    def subscriptions(self, prefix: str) -> int:
        """Return how many channels anybody is subscribed to, but for those of probes."""
        with connected(self.url) as client:
            answer = client.ask("$SYS.REQ.ACCOUNT.PING.CONNZ", {"subscriptions": True})
        subjects = {
            subject
            for connection in answer["data"]["connections"]
            for subject in connection.get("subscriptions_list", ())
        }
        return sum(channel_of(prefix, subject) is not None for subject in subjects)

    def publish(self, prefix: str, audience: str, name: str, payload: bytes) -> None:
        """Publish something on the channel of an audience, as a stranger may."""
        subject = f"{prefix}.deliver.{audience}.{name}" if name else f"{prefix}.deliver.{audience}"
        with connected(self.url) as client:
            client.send(f"PUB {subject} {len(payload)}\r\n".encode() + payload + b"\r\n")
            client.settle()

    @contextmanager
    def counting(self, prefix: str) -> Generator[list[str], None, None]:
        """Note, at the end of the block, the channel of each message published in it."""
        channels: list[str] = []
        with connected(self.url) as client:
            client.send(f"SUB {prefix}.deliver.> 2\r\n".encode())
            client.settle()
            yield channels
            messages = client.settle()
        found = (channel_of(prefix, subject) for subject, _ in messages)
        channels.extend(filter(None, found))


def channel_of(prefix: str, subject: str) -> str | None:
    """Return the channel that a subject stands for; None: none of ours, or that of a probe."""
    found = re.fullmatch(rf"{prefix}\.deliver\.([^.]+)(?:\.([^.]+))?", subject)
    if found is None or found[1] == "worker":
        return None
    return ":".join(unquote(part) for part in (prefix, *found.groups()) if part)


class NatsServer(NatsAdmin):
    """
    NATS on a free port of this machine, with a directory of its own.

    Attributes:
        port: Where it listens, also after a restart.
        configuration: What its file of configuration says.
        greets: Whether it speaks first.
    """

    def __init__(self, configuration: str = CONFIGURATION, *, greets: bool = True) -> None:
        self.port = free_port()
        super().__init__(f"nats://127.0.0.1:{self.port}")
        self.greets = greets
        self.directory = Path(tempfile.mkdtemp(prefix="wshub-nats-"))
        self.configuration = configuration
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        self.answers()

    def launch(self) -> None:
        """Start it."""
        assert PROGRAM is not None
        path, log = self.directory / "nats.conf", self.directory / "log"
        path.write_text(
            self.configuration.format(port=self.port, directory=self.directory / "store")
        )
        self._process = subprocess.Popen([PROGRAM, "--config", str(path), "--log", str(log)])

    def answers(self) -> None:
        """Wait until it answers."""
        wait_until(self._answers, awaited="NATS to answer")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return not self.greets or connection.recv(4) == b"INFO"
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it stand still: its connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # each thread of it

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, and remove what it wrote. Idempotent."""
        self.resume()
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
