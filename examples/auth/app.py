"""
Log in, chat as long as that lasts, and log out everywhere.

Run it with ``python -m wshub.examples auth`` and open the address that it prints in two tabs.
A form and a cookie log people in; the page fetches a ticket for its WebSocket, which ends when
the ticket's principal does, unless the page sends a new token in time. Sessions and users are in
memory here; in your app they are wherever yours are.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import FileResponse
from pydantic import BaseModel, TypeAdapter
from starlette.exceptions import WebSocketException

from wshub import ConnectionManager
from wshub.auth import (
    OriginPolicy,
    Principal,
    Tickets,
    authenticate,
    cookie,
    jwt_verifier,
    redact_queries,
    ticket,
)
from wshub.rejections import RejectionHandler

LIFETIME = 60.0  # seconds that a token, and a connection without a newer one, is worth something
KEY = secrets.token_urlsafe(32)


class Login(BaseModel):
    name: str
    password: str


class Say(BaseModel):
    type: Literal["say"]
    text: str


class Refresh(BaseModel):
    type: Literal["refresh"]
    token: str


incoming: TypeAdapter[Say | Refresh] = TypeAdapter(Say | Refresh)


def digest(password: str) -> bytes:
    return hashlib.scrypt(password.encode(), salt=KEY.encode(), n=2**12, r=8, p=1)


USERS = {"ana": digest("tea"), "ben": digest("coffee")}
NOBODY = digest(secrets.token_urlsafe())
SESSIONS: dict[str, Principal] = {}

manager = ConnectionManager()
tickets = Tickets()
app = FastAPI(title="wshub example: auth", lifespan=manager.lifespan)
app.add_exception_handler(WebSocketException, RejectionHandler("close"))
redact_queries("ticket")


def key_of(session: str) -> str:
    """Look sessions up by a hash: how long that takes tells nothing of them."""
    return hashlib.sha256(session.encode()).hexdigest()


async def find_session(value: str) -> Principal | None:
    return SESSIONS.get(key_of(value))


verify_token = jwt_verifier(KEY, algorithms=["HS256"], audience="chat", leeway=0)
Visitor = Annotated[Principal, Depends(authenticate(cookie("session"), verify=find_session))]
Guest = Annotated[Principal, Depends(authenticate(ticket(tickets)))]


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/login", dependencies=[Depends(OriginPolicy())])
def log_in(login: Login, request: Request, response: Response) -> str:
    """Check the password, in a thread as that takes time, and begin a session."""
    is_right = hmac.compare_digest(digest(login.password), USERS.get(login.name, NOBODY))
    if not is_right:
        raise HTTPException(401, "wrong name or password")
    session = secrets.token_urlsafe(32)
    SESSIONS[key_of(session)] = Principal(login.name, session_id=secrets.token_urlsafe(8))
    secure = request.url.scheme == "https"
    response.set_cookie("session", session, httponly=True, samesite="lax", secure=secure)
    response.set_cookie("signed_in", "yes", samesite="lax", secure=secure)  # for the page to see
    return login.name


@app.post("/logout")
async def log_out(visitor: Visitor, request: Request, response: Response) -> None:
    """End the session first, so that no tab comes back, then close all of its tabs."""
    SESSIONS.pop(key_of(request.cookies["session"]), None)
    response.delete_cookie("session")
    response.delete_cookie("signed_in")
    await manager.disconnect_session(visitor.session_id or "")


@app.post("/ticket")
async def issue_ticket(visitor: Visitor, request: Request) -> str:
    return await tickets.issue(replace(visitor, expires_at=time.time() + LIFETIME), request)


@app.post("/token")
async def issue_token(visitor: Visitor) -> str:
    claims = {"sub": visitor.user, "sid": visitor.session_id, "aud": "chat"}
    return jwt.encode(claims | {"exp": time.time() + LIFETIME}, KEY)


@app.websocket("/ws")
async def chat(websocket: WebSocket, guest: Guest) -> None:
    async with manager.connection(websocket, principal=guest) as connection:
        await connection.send({"type": "welcome", "name": guest.user, "lifetime": LIFETIME})
        async for message in connection.iter_model(incoming):
            if isinstance(message, Refresh):
                connection.refresh(await verify_token(message.token))
            else:
                said = {"type": "said", "name": guest.user, "text": message.text}
                await manager.broadcast(said)
