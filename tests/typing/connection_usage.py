"""What an editor infers in a handler. Checked, never executed."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_type

from pydantic import BaseModel, Field, TypeAdapter

from wshub import CloseCode, Connection, ConnectionClosed, OutboxFull


class Say(BaseModel):
    """One message of a client."""

    type: Literal["say"]
    text: str


class Leave(BaseModel):
    """Another one."""

    type: Literal["leave"]


@dataclass
class Point:
    """No model, but pydantic validates it too."""

    x: int
    y: int


AnyMessage: TypeAdapter[Say | Leave] = TypeAdapter(
    Annotated[Say | Leave, Field(discriminator="type")]
)


async def messages(connection: Connection) -> None:
    async for message in connection:
        assert_type(message, str | bytes)
        if isinstance(message, str):
            assert_type(message, str)
        else:
            assert_type(message, bytes)
    async for text in connection.iter_text():
        assert_type(text, str)
    async for data in connection.iter_bytes():
        assert_type(data, bytes)
    async for value in connection.iter_json():
        assert_type(value, Any)
    assert_type(await connection.receive(), str | bytes)
    assert_type(await connection.receive(timeout=1.5), str | bytes)


async def models(connection: Connection) -> None:
    async for say in connection.iter_model(Say):
        assert_type(say, Say)
    async for point in connection.iter_model(Point):
        assert_type(point, Point)
    async for numbers in connection.iter_model(list[int]):
        assert_type(numbers, list[int])
    async for message in connection.iter_model(AnyMessage):
        assert_type(message, Say | Leave)
        match message:
            case Say(text=text):
                assert_type(text, str)
            case Leave():
                assert_type(message, Leave)


async def sending(connection: Connection) -> None:
    assert_type(await connection.send({"any": "JSON"}), None)
    assert_type(connection.send_nowait(Say(type="say", text="hello")), None)
    assert_type(await connection.join("lobby"), None)
    assert_type(await connection.leave("lobby"), None)
    assert_type(await connection.close(), None)
    assert_type(await connection.close(CloseCode.GOING_AWAY, "bye"), None)
    assert_type(await connection.close(code=4001, reason="bye"), None)
    assert_type(connection.abort(), None)


async def count() -> int:
    return 1


async def tasks(connection: Connection) -> None:
    task = connection.spawn(count())
    assert_type(task, asyncio.Task[int])
    assert_type(await task, int)


async def endings(connection: Connection) -> None:
    assert_type(connection.closed, ConnectionClosed | None)
    try:
        connection.send_nowait("hello")
    except ConnectionClosed as closed:
        assert_type(closed.code, int)
        assert_type(closed.reason, str)
        assert_type(closed.by, Literal["peer", "hub", "server"])
    except OutboxFull as full:
        assert_type(full.connection_id, str)
        assert_type(full.messages, int)
        assert_type(full.bytes, int)
