"""
The flood: handshakes of strangers at a steady rate, `python -m benchmarks.flood`.

It obeys its standard input and answers on its standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from typing import Any

from benchmarks.machine import pin, raise_file_limit

LINGER = 2.0
"""Seconds for the last answers of a flood."""

NICENESS = 10
"""So that it takes no time from the clients beside it, whose latency is measured."""

PAUSE = 0.002
"""Seconds between two bursts."""


def flood(*, port: int, rate: float, seconds: float, path: str) -> dict[str, Any]:
    """Open `rate` handshakes a second, all from one address; return how they were answered."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Authorization: Bearer nobody\r\n\r\n"
    ).encode()
    poll = select.epoll()
    waiting: dict[int, socket.socket] = {}
    answers: Counter[str] = Counter()
    start = time.monotonic()
    opened = 0
    while (now := time.monotonic() - start) < seconds + LINGER and (now < seconds or waiting):
        due = min(int(now * rate), int(seconds * rate))
        while opened < due:
            _open(port, request, poll, waiting, answers)
            opened += 1
        for descriptor, _ in poll.poll(PAUSE):
            connection = waiting.pop(descriptor)
            poll.unregister(descriptor)
            answers[_read_status(connection)] += 1
            connection.close()
    for connection in waiting.values():
        answers["none"] += 1
        connection.close()
    poll.close()
    refused = sum(answers[status] for status in ("401", "403", "reset", "closed"))
    return {"opened": opened, "refused": refused, "answers": dict(answers)}


def _open(
    port: int,
    request: bytes,
    poll: select.epoll,
    waiting: dict[int, socket.socket],
    answers: Counter[str],
) -> None:
    connection = socket.socket()
    try:
        connection.bind(("127.0.0.99", 0))
        connection.connect(("127.0.0.1", port))
        connection.send(request)
    except OSError:
        answers["failed"] += 1
        connection.close()
        return
    waiting[connection.fileno()] = connection
    poll.register(connection.fileno(), select.EPOLLIN)


def _read_status(connection: socket.socket) -> str:
    try:
        return connection.recv(1024)[9:12].decode() or "closed"
    except ConnectionError:
        return "reset"


def main() -> None:
    """Run the flood on the processor that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood")
    parser.add_argument("--core", type=int, help="the only processor to run on")
    pin(parser.parse_args().core)
    raise_file_limit()
    os.nice(NICENESS)
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        assert request.pop("command") == "flood"
        print(json.dumps({"result": flood(**request)}), flush=True)


if __name__ == "__main__":
    main()
