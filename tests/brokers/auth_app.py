"""A worker for tests as `worker_app` is, for those who can say who they are, by JWT or ticket."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Depends, Request, WebSocket
from starlette.exceptions import WebSocketException

from tests.brokers.worker_app import app, manager
from tests.secrecy import KEY
from wshub.auth import (
    Principal,
    Tickets,
    authenticate,
    bearer_header,
    first_of,
    jwt_verifier,
    redact_queries,
    ticket,
)
from wshub.backends import one_time_keys_from_url
from wshub.rejections import RejectionHandler

__all__ = ("app",)

verify = jwt_verifier(KEY, algorithms=["HS256"], leeway=0)
tickets = Tickets(one_time_keys_from_url(os.environ["WSHUB_BACKEND"], prefix="authworkers"))
get_principal = authenticate(first_of(ticket(tickets), bearer_header()), verify=verify)
CurrentPrincipal = Annotated[Principal, Depends(get_principal)]

redact_queries("ticket")
app.add_exception_handler(WebSocketException, RejectionHandler())


@app.websocket("/private")
async def private(websocket: WebSocket, principal: CurrentPrincipal) -> None:
    async with manager.connection(websocket, principal=principal) as connection:
        await connection.send(f"hello {principal.user}")
        async for message in connection.iter_text():
            connection.refresh(await verify(message))
            await connection.send("refreshed")


@app.post("/ticket")
async def issue(request: Request, principal: CurrentPrincipal) -> str:
    return await tickets.issue(principal, request)


@app.get("/me")
async def me(principal: CurrentPrincipal) -> str:
    return principal.user


@app.delete("/session")
async def log_out(principal: CurrentPrincipal) -> None:
    await manager.disconnect_session(principal.session_id or "")
