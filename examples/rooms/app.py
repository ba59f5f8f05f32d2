"""
A chat: several rooms, names, who is here, private messages; what ``make demo`` starts.

Run it with ``python -m examples rooms``, open the address that it prints in two tabs, and be
someone else in the second one. With several workers: ``WSHUB_BACKEND=redis://localhost uvicorn
examples.rooms.app:app --workers 4``. There is no log-in: the page makes up a key and keeps it, and
others see an id derived from that key, so nobody can pose as somebody else.
"""

import hashlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket
from fastapi.exceptions import WebSocketRequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from wshub import BackendUnavailable, Connection
from wshub.rejections import RejectionHandler

from . import messages
from .presence import (
    MOST_ROOMS,
    SEVERAL_WORKERS,
    WORKER,
    announce,
    lifespan,
    manager,
    one_more_tab,
    people,
    people_in,
    rooms,
)

HERE = Path(__file__).parent
CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

app = FastAPI(title="wshub example: rooms", lifespan=lifespan)
app.mount("/static", StaticFiles(directory=HERE / "static"))
app.add_exception_handler(WebSocketRequestValidationError, RejectionHandler(answer="close"))


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(HERE / "page.html", headers={"Content-Security-Policy": CSP})


@app.websocket("/ws")
async def chat(
    websocket: WebSocket,
    name: messages.Name,
    key: Annotated[str, Query(min_length=16, max_length=64)],
    room: Annotated[list[messages.RoomName], Query(min_length=1, max_length=MOST_ROOMS)],
) -> None:
    user = hashlib.sha256(key.encode()).hexdigest()[:16]
    joined = set(room)
    try:
        with one_more_tab(user, name) as person:
            async with manager.connection(websocket, user=user, rooms=joined) as connection:
                await connection.send(messages.Welcome(you=user, worker=WORKER))
                await announce(joined)
                async for message in connection.iter_model(messages.FromPage):
                    await answer(connection, person, joined, message.root)
    finally:
        await announce(joined)


async def answer(
    connection: Connection, person: messages.Person, joined: set[str], message: messages.AnyFromPage
) -> None:
    match message:
        case messages.Say(ref=ref, room=room, text=text) if room in joined:
            said = messages.Said(ref=ref, room=room, sender=person, text=text)
            await deliver(connection, ref, manager.broadcast(said, room=room))
        case messages.Tell(ref=ref, to=to, text=text) if to in people or SEVERAL_WORKERS:
            other = people.get(to) or messages.Person(id=to, name="", tabs=0)  # elsewhere
            told = messages.Told(ref=ref, sender=person, to=other, text=text)
            for user in {person.id, to}:
                await deliver(connection, ref, manager.send_to_user(user, told))
        case messages.Say(ref=ref) | messages.Tell(ref=ref):
            await connection.send(messages.Undelivered(ref=ref))
        case messages.Enter(room=room):
            await connection.join(room)  # a room too many closes the tab's connection, with 1008
            joined.add(room)
            await announce([room])
        case messages.Leave(room=room):
            await connection.leave(room)
            joined.discard(room)
            await announce([room])
        case _:
            person.name = message.name
            await announce([room for room in rooms if person in people_in(room)])


async def deliver(connection: Connection, ref: str, sending: Awaitable[None]) -> None:
    try:
        await sending
    except BackendUnavailable:  # the page says so, and can send it again
        await connection.send(messages.Undelivered(ref=ref))
