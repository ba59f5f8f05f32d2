"""An app whose endpoints do as they are told, and keep what they saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.responses import PlainTextResponse

from wshub import ConnectionManager

if TYPE_CHECKING:
    from wshub import Connection

FANOUT, STOCK = "wshub.uvicorn:FanoutProtocol", "websockets-sansio"

MANAGED = ("/managed?do=echo", "/managed?do=broadcast")
ECHOES = (*MANAGED, "/plain?do=echo")
"""Where every message comes back: by a manager in two ways, and without one."""


class Witness:
    """
    Serves the same at `/managed` with a manager, and at `/plain` with Starlette alone.

    `?do=echo` and `?do=broadcast` send every message back, `?do=close` closes at the first with
    `?code=` and `?reason=`, `?do=return` returns then, `?do=raise` raises.

    Attributes:
        saw: What every handler so far was told, in the order in which they ended.
        opened: Every managed connection so far.
    """

    def __init__(self, manager: ConnectionManager | None = None) -> None:
        self.manager = manager or ConnectionManager()
        self.saw: list[list[object]] = []
        self.opened: list[Connection] = []
        self.begun = asyncio.Event()
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.app.add_api_websocket_route("/managed", self.serve_managed)
        self.app.add_api_websocket_route("/plain", self.serve_plain)
        self.app.add_api_websocket_route("/refused", self.refuse)

    async def serve_managed(
        self,
        websocket: WebSocket,
        do: str,
        code: int = 1000,
        reason: str = "",
        subprotocol: str | None = None,
    ) -> None:
        seen: list[object] = []
        try:
            async with self.manager.connection(
                websocket, subprotocol=subprotocol, headers=[(b"x-more", b"one")]
            ) as connection:
                self.opened.append(connection)
                async for message in connection:
                    seen.append(message)
                    if do == "broadcast":
                        await self.manager.broadcast(message)
                    elif do == "echo":
                        await connection.send(message)
                    elif do == "close":
                        await connection.close(code, reason)
                    else:
                        self._end(do)
                        break
        finally:
            assert connection.closed is not None
            seen.append((connection.closed.code, connection.closed.reason))
            self.saw.append(seen)

    async def serve_plain(
        self,
        websocket: WebSocket,
        do: str,
        code: int = 1000,
        reason: str = "",
        subprotocol: str | None = None,
    ) -> None:
        await websocket.accept(subprotocol, headers=[(b"x-more", b"one")])
        seen: list[object] = []
        try:
            while True:
                event = await websocket.receive()
                websocket._raise_on_disconnect(event)
                text = event.get("text")
                seen.append(bytes(event["bytes"]) if text is None else text)
                if do == "echo":
                    await websocket.send({**event, "type": "websocket.send"})
                elif do == "close":
                    await websocket.close(code, reason)
                else:
                    self._end(do)
                    break
        except WebSocketDisconnect as gone:
            seen.append((gone.code, gone.reason))
        finally:
            self.saw.append(seen)

    async def refuse(self, websocket: WebSocket, how: str) -> None:
        if how == "close":
            await websocket.close()
        elif how == "response":
            await websocket.send_denial_response(PlainTextResponse("not you", 418))
        else:
            self._end(how)

    def _end(self, do: str) -> None:
        if do == "raise":
            raise RuntimeError("told to")
