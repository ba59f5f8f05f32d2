"""Who is here, and telling the pages about it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from wshub import ConnectionManager, Limits

from .messages import People, Person, Rooms

ALWAYS_OPEN: tuple[str, ...] = ("lobby", "coffee", "ideas")
MOST_ROOMS = 20  # for one tab

manager = ConnectionManager(
    limits=Limits(
        rooms_per_connection=MOST_ROOMS,
        messages_per_second=5,  # on average: a page that comes back has some to send at once
        message_bytes=16 * 1024,
    )
)
people: dict[str, Person] = {}  # everyone with a tab open, by user id
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
    for room in changed:
        here = people_in(room)
        rooms[room] = len(here)
        if not here and room not in ALWAYS_OPEN:
            del rooms[room]
        await manager.broadcast(People(room=room, people=here), room=room)
    await manager.broadcast(Rooms(rooms=rooms))
