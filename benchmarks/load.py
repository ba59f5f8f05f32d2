"""
The load generator: many raw WebSocket clients in one process, `python -m benchmarks.load`.

It obeys its standard input and answers on its standard output, one JSON object a line. It does
as little as it can for each frame, so that the server is what limits.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import sys
import time
from array import array
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.dialect import DIALECTS, Dialect, mask
from benchmarks.frames import FrameReader
from benchmarks.machine import pin, raise_file_limit
from benchmarks.talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUFFER = 256 * 1024
"""Bytes that are taken from a socket at once."""

TINY_BUFFER = 4096
"""Bytes that the system may hold for a client that never reads."""

SEGMENT = 1460
"""Bytes of a segment to it, as on Ethernet. On those of loopback the server's system would hold
megabytes before anybody noticed that nothing is read."""

AT_ONCE = 64
"""Connections that open, or close, at the same time."""

PORTS_PER_ADDRESS = 20_000
"""Connections from one address; Linux has some 28,000 ephemeral ports for each."""

CLOSE_FRAME = mask(b"\x03\xe8", 0x88)
"""1000."""

EXTENSION = "permessage-deflate"
OFFER = f"Sec-WebSocket-Extensions: {EXTENSION}; client_max_window_bits\r\n"
"""What browsers offer."""

HANDSHAKE_TIMEOUT = 10.0


class Client:
    """One connection; `head` is what has come of the HTTP answer, or None when it was complete."""

    __slots__ = ("dialect", "greeted", "head", "notice", "port", "reader", "socket")

    def __init__(
        self,
        connection: socket.socket,
        notice: Callable[[int], None],
        dialect: Dialect,
        port: int,
    ) -> None:
        self.socket = connection
        self.reader = FrameReader(notice)
        self.notice = notice
        self.dialect = dialect
        self.port = port
        self.greeted = 0
        self.head: bytes | None = b""


class Load:
    """Holds the clients and counts what they get."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._clients: dict[int, Client] = {}
        self._stalled: list[socket.socket] = []
        self._view = memoryview(bytearray(BUFFER))
        self._accepted = 0
        self._compressed = False
        self._frames = 0
        self._bytes = 0
        self._last = 0
        self._latencies = array("q")
        self._asked = False
        self.commands: dict[str, Callable[..., object]] = {
            "chat": self.chat,
            "close": self.close,
            "connect": self.connect,
            "latency": self.latency,
            "release": self.release,
            "stall": self.stall,
            "wait": self.wait,
        }

    def run(self) -> None:
        """Obey until the standard input ends."""
        while True:
            self._pump(lambda: self._asked)
            self._asked = False
            line = sys.stdin.buffer.readline()
            if not line:
                return
            request: dict[str, Any] = json.loads(line)
            result = self.commands[request.pop("command")](**request)
            print(json.dumps({"result": result}), flush=True)

    def connect(
        self,
        *,
        port: int,
        count: int,
        path: str,
        dialect: str = "plain",
        compressed: bool = False,
        timed: bool = True,
        timeout: float = 120,
    ) -> int:
        """
        Open `count` connections; return how many were accepted in time.

        What comes to those that are not `timed` only counts.
        """
        notice = self._notice if timed else self._count
        self._compressed = compressed
        request = _request(path, OFFER if compressed else "")
        before = self._accepted
        deadline = time.monotonic() + timeout
        for opened in range(1, count + 1):
            address = len(self._clients) // PORTS_PER_ADDRESS
            self._open(port, request, DIALECTS[dialect], address, notice)
            least = before + (opened if opened == count else opened - AT_ONCE)
            if not self._pump(partial(self._has_accepted, least), deadline):
                break
        return self._accepted - before

    def stall(self, *, port: int, count: int, path: str) -> None:
        """Open `count` connections that will never read."""
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            connection.settimeout(HANDSHAKE_TIMEOUT)
            connection.connect(("127.0.0.1", port))
            connection.sendall(_request(path, ""))
            connection.recv(1024)
            self._stalled.append(connection)

    def release(self) -> None:
        """Let go of those that never read."""
        for connection in self._stalled:
            connection.close()
        self._stalled.clear()

    def wait(self, *, frames: int, timeout: float = 60) -> dict[str, int]:
        """Wait until so many messages have come since the last time, and count anew."""
        self._pump(lambda: self._frames >= frames, time.monotonic() + timeout)
        result = {"frames": self._frames, "bytes": self._bytes, "last_ns": self._last}
        self._frames = self._bytes = 0
        return result

    def chat(
        self,
        *,
        seconds: float,
        period: float,
        size: int,
        patience: float,
        port: int | None = None,
        audience: int | None = None,
    ) -> dict[str, float]:
        """
        Have every client speak once in each `period`, and count what reaches all of them.

        With a `port` only those speak that are connected to it; `audience` is how many of all
        clients what one says is for.

        Return the deliveries that were due, and those that came before `patience` seconds after
        the last period; for how many seconds it went on; and of this process its own faults: ms
        of lateness in sending and in reading, 99th percentiles, and its share of a processor.
        """
        speakers = [one for one in self._clients.values() if port is None or one.port == port]
        talk = Talk(speakers, seconds=seconds, period=period, size=size)
        expected = talk.count * (len(self._clients) if audience is None else audience)
        batches = array("q")
        self._frames = 0
        start, used = time.monotonic_ns(), time.process_time_ns()
        end = talk.end + round(patience * 1e9)
        while self._frames < expected and (now := time.monotonic_ns()) < end:
            ready = self._poll.poll(max(0, min(talk.due, end) - now) / 1e9)
            woken = time.monotonic_ns()
            talk.say_due()
            for descriptor, _ in ready:
                if descriptor == sys.stdin.fileno():
                    raise SystemExit  # nothing is asked before an answer: the benchmark has ended
                self._read(self._clients[descriptor])
                talk.say_due()  # one at most: however late it is, reading goes on
            batches.append(time.monotonic_ns() - woken)
        elapsed = time.monotonic_ns() - start
        frames, self._frames = self._frames, 0
        return {
            "expected": expected,
            "frames": frames,
            "seconds": elapsed / 1e9,
            "sending_lag": _percentiles(talk.lateness)[98] / 1e6,
            "reading_lag": _percentiles(batches)[98] / 1e6,
            "share": (time.process_time_ns() - used) / elapsed,
        }

    def latency(self) -> dict[str, float]:
        """Return percentiles of how many ms the messages with a time in them took; forget them."""
        latencies, self._latencies = self._latencies, array("q")
        percentiles = _percentiles(latencies)
        return {
            "count": len(latencies),
            "p50": percentiles[49] / 1e6,
            "p99": percentiles[98] / 1e6,
            "max": max(latencies, default=0) / 1e6,
        }

    def close(self, *, timeout: float = 120) -> int:
        """Close every connection that reads with 1000; return how many did not end in time."""
        deadline = time.monotonic() + timeout
        clients = list(self._clients.values())
        random.Random(len(clients)).shuffle(clients)  # noqa: S311  (people leave in any order)
        for left, client in zip(range(len(clients))[::-1], clients, strict=True):
            client.socket.send(CLOSE_FRAME)
            most = left + AT_ONCE if left else 0
            if not self._pump(partial(self._has_at_most, most), deadline):
                break
        return len(self._clients)

    def _has_accepted(self, least: int) -> bool:
        return self._accepted >= least

    def _has_at_most(self, most: int) -> bool:
        return len(self._clients) <= most

    def _open(
        self,
        port: int,
        request: bytes,
        dialect: Dialect,
        address: int,
        notice: Callable[[int], None],
    ) -> None:
        connection = socket.socket()
        if address:
            connection.bind((f"127.0.0.{address + 1}", 0))
        connection.connect(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as browsers do
        connection.settimeout(0)
        connection.send(request)
        client = Client(connection, notice, dialect, port)
        self._clients[connection.fileno()] = client
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _pump(self, done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Take what comes until `done()`; return whether it was done in time."""
        stdin = sys.stdin.fileno()
        while not done():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            for descriptor, _ in self._poll.poll(left):
                if descriptor == stdin:
                    self._asked = True
                else:
                    self._read(self._clients[descriptor])
            if self._asked and deadline is not None:
                raise SystemExit  # nothing is asked before an answer: the benchmark has ended
        return True

    def _read(self, client: Client) -> None:
        try:
            length = client.socket.recv_into(self._view)
        except ConnectionError:
            length = 0
        if not length:
            descriptor = client.socket.fileno()
            self._poll.unregister(descriptor)
            del self._clients[descriptor]
            client.socket.close()
        elif client.head is None:
            self._bytes += length
            client.reader.feed(self._view[:length])
        else:
            self._greet(client, client.head + self._view[:length])

    def _greet(self, client: Client, received: bytes) -> None:
        head, end, rest = received.partition(b"\r\n\r\n")
        if not end:
            client.head = received
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(head.decode("latin-1"))
        if self._compressed and EXTENSION.encode() not in head.lower():
            raise RuntimeError("the server does not compress")
        client.head = None
        if client.dialect.greetings:
            client.reader.notice = partial(self._greet_further, client)
        else:
            self._accepted += 1
        client.reader.feed(memoryview(rest))

    def _greet_further(self, client: Client, _: int) -> None:
        """Answer what comes before messages do."""
        greetings = client.dialect.greetings
        answer = greetings[client.greeted]
        client.greeted += 1
        if answer is not None:
            client.socket.send(answer)
        if client.greeted == len(greetings):
            client.reader.notice = client.notice
            self._accepted += 1

    def _count(self, _: int) -> None:
        self._frames += 1

    def _notice(self, stamp: int) -> None:
        self._frames += 1
        if stamp:
            self._last = time.monotonic_ns()
            self._latencies.append(self._last - stamp)


def _percentiles(values: Sequence[float]) -> list[float]:
    return quantiles(values, n=100) if len(values) > 1 else [0.0] * 99


def _request(path: str, extensions: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"{extensions}\r\n"
    ).encode()


def main() -> None:
    """Run the load generator on the processor that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    parser.add_argument("--core", type=int, help="the only processor to run on")
    pin(parser.parse_args().core)
    raise_file_limit()
    Load().run()


if __name__ == "__main__":
    main()
