"""What the rooms page and its server say to each other, one model for each message."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, RootModel, StringConstraints

# The patterns are Rust's: \p{L} is any letter, \p{N} any digit, \p{Cc} any control character.
RoomName = Annotated[str, StringConstraints(pattern=r"^[\p{L}\p{N}][\p{L}\p{M}\p{N}_-]{0,31}$")]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=32, pattern=r"^[^\p{Cc}]+$"),
]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
# The page names each of its messages, so that it sees which have arrived, can send the
# others again after a reconnect, and can leave out one that comes twice.
Ref = Annotated[str, StringConstraints(min_length=1, max_length=36)]


class Say(BaseModel):
    """To everyone in a room."""

    type: Literal["say"]
    ref: Ref
    room: RoomName
    text: Text


class Tell(BaseModel):
    """To one person, in all of their tabs."""

    type: Literal["tell"]
    ref: Ref
    to: Annotated[str, StringConstraints(max_length=64)]
    text: Text


class Enter(BaseModel):
    type: Literal["enter"]
    room: RoomName


class Leave(BaseModel):
    type: Literal["leave"]
    room: RoomName


class Rename(BaseModel):
    type: Literal["rename"]
    name: Name


AnyFromPage = Annotated[Say | Tell | Enter | Leave | Rename, Field(discriminator="type")]


class FromPage(RootModel[AnyFromPage]):
    """Any message that a page may send."""


class Person(BaseModel):
    """One person, however many tabs they have open."""

    id: str
    name: str
    tabs: int


class Welcome(BaseModel):
    """The first message to a page: who it is to the others."""

    type: Literal["welcome"] = "welcome"
    you: str
    worker: str


class People(BaseModel):
    """Who is in a room by a worker: the whole list, so that no message lost can make it wrong."""

    type: Literal["people"] = "people"
    worker: str
    room: str
    people: list[Person]


class Rooms(BaseModel):
    """The rooms that a worker has, and how many people are in each."""

    type: Literal["rooms"] = "rooms"
    worker: str
    rooms: dict[str, int]


class Said(BaseModel):
    type: Literal["said"] = "said"
    ref: str
    room: str
    sender: Person
    text: str


class Told(BaseModel):
    type: Literal["told"] = "told"
    ref: str
    sender: Person
    to: Person
    text: str


class Undelivered(BaseModel):
    """To the sender: nobody could get that message."""

    type: Literal["undelivered"] = "undelivered"
    ref: str
