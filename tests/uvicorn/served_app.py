"""An app for servers that are started in one way or the other, and what starts them."""

from __future__ import annotations

import os
import socket
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from wshub import ConnectionManager
from wshub._framed_outbox import FramedOutbox
from wshub.uvicorn import FanoutProtocol
from wshub.uvicorn._sink import UvicornSink

manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)

MESSAGES = 200
SIZE = 4000


class FanoutWorker(UvicornWorker):  # type: ignore[misc]
    """As the documentation has it."""

    CONFIG_KWARGS = {"ws": "wshub.uvicorn:FanoutProtocol"}  # noqa: RUF012


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    """Say how it is served, or send more than a client takes."""
    async with manager.connection(websocket) as connection:
        sink, outbox = connection._link._sink, connection.outbox
        assert isinstance(sink, UvicornSink)
        assert isinstance(outbox, FramedOutbox)
        taken = sink._protocol.transport.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async for question in connection:
            if question == "how?":
                facts = {
                    "process": os.getpid(),
                    "past the transport": outbox.descriptor == taken.fileno(),
                    "without delay": taken.family == socket.AF_UNIX
                    or taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) > 0,
                }
                await connection.send(facts)
                continue
            for number in range(MESSAGES):
                connection.send_nowait(f"{number:04}" * (SIZE // 4))
            sys.stdout.write(f"{outbox.messages} wait\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvicorn.run(app, ws=FanoutProtocol, port=0)
