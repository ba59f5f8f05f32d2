"""Who is here, and telling the pages about it."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from wshub import BackendUnavailable, ConnectionManager, Limits
from wshub.backends import backend_from_url

from .messages import People, Person, Rooms

ALWAYS_OPEN: tuple[str, ...] = ("lobby", "coffee", "ideas")
MOST_ROOMS = 20  # for one tab

BACKEND = os.environ.get("WSHUB_BACKEND", "memory://")  # or redis://…, for several workers
SEVERAL_WORKERS = not BACKEND.startswith("memory:")
WORKER = secrets.token_hex(4)  # each tells of its own people, and the pages add that up
AGAIN = 2.0  # seconds: then pages that came to other workers know, too

manager = ConnectionManager(
    backend=backend_from_url(BACKEND, prefix="wshub-rooms"),
    limits=Limits(
        rooms_per_connection=MOST_ROOMS,
        messages_per_second=5,  # on average: a page that comes back has some to send at once
        message_bytes=16 * 1024,
    ),
)
people: dict[str, Person] = {}  # everyone with a tab open on this worker, by user id
rooms: dict[str, int] = dict.fromkeys(ALWAYS_OPEN, 0)  # how many people are in each room


@contextmanager
def one_more_tab(user: str, name: str) -> Iterator[Person]:
    """Count a tab of a person; the first one makes them appear, the last one disappear."""
    person = people.setdefault(user, Person(id=user, name=name, tabs=0))
    person.name = name
    person.tabs += 1
    try:
        yield person
    finally:
        person.tabs -= 1
        if not person.tabs:
            del people[user]


def people_in(room: str) -> list[Person]:
    """Everyone in a room, once, however many of their tabs are in it."""
    users = dict.fromkeys(member.user for member in manager.room(room).members)
    return [people[user] for user in users if user is not None]


async def announce(changed: Iterable[str]) -> None:
    """Tell some rooms who is in them now, and everyone how full the rooms are."""
    lists = [People(worker=WORKER, room=room, people=people_in(room)) for room in changed]
    for each in lists:
        rooms[each.room] = len(each.people)
        if not each.people and each.room not in ALWAYS_OPEN:
            del rooms[each.room]
    with suppress(BackendUnavailable):  # with several workers it is told again, in any case
        for each in lists:
            await manager.broadcast(each, room=each.room)
        await manager.broadcast(Rooms(worker=WORKER, rooms=rooms))


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    """Run the manager; among several workers, tell of the people here again and again."""

    async def tell_again() -> None:
        while SEVERAL_WORKERS:
            await asyncio.sleep(AGAIN)
            await announce(list(rooms))

    async with manager.lifespan(app):
        telling = asyncio.create_task(tell_again())
        yield
        telling.cancel()
