"""
Run one server as a process of its own: `python -m benchmarks.servers hub`.

It listens on a free port, says so on its standard output, and obeys its standard input: one JSON
object a line in either direction.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import socket
import sys
import tracemalloc
from typing import Any

from benchmarks.machine import pin, raise_file_limit
from benchmarks.servers.control import Control

BACKLOG = 4096


async def main(options: argparse.Namespace) -> None:
    """Serve until the benchmark kills this process."""
    make = importlib.import_module(f"benchmarks.servers.{options.server}").Server
    server = make(options.broker) if options.broker else make()
    # Several may start at the same time, and need all processors for it.
    pin(options.core)
    if options.trace:
        tracemalloc.start()
    # asyncio switches Nagle's algorithm off only for sockets that name their protocol, as those do
    # that it makes itself for a host and a port.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Clients come from several addresses of the loopback network, but always to the first.
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    listener.settimeout(0)
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(requests), sys.stdin
    )
    control = Control(server)
    async with server.serve(listener, options.ws):
        reply({"port": listener.getsockname()[1]})
        while line := await requests.readline():
            request: dict[str, Any] = json.loads(line)
            reply({"result": await control.commands[request.pop("command")](**request)})


def reply(answer: dict[str, object]) -> None:
    """Write one line to whoever started this process."""
    print(json.dumps(answer), flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers")
    parser.add_argument("server", help="a module of benchmarks.servers")
    parser.add_argument("--broker", help="URL of the server that connects it with other workers")
    parser.add_argument("--ws", default="websockets-sansio", help="as of uvicorn")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--core", type=int, help="the only processor to run on")
    parser.add_argument("--trace", action="store_true", help="trace what Python allocates")
    return parser.parse_args()


def run() -> None:
    """Run `main` in the event loop that is asked for."""
    options = parse()
    logging.basicConfig(level=logging.ERROR)
    raise_file_limit()
    factory = importlib.import_module("uvloop").new_event_loop if options.loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(options))


if __name__ == "__main__":
    run()
