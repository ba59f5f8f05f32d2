"""What an editor infers for limits, heartbeats and hooks. Checked, never executed."""

from typing import assert_never, assert_type

from wshub import (
    BackendLost,
    BackendRegained,
    Connection,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionManager,
    ConnectionOpened,
    Event,
    Heartbeat,
    Hook,
    LimitExceeded,
    LimitReached,
    Limits,
    MessagesDropped,
)
from wshub.events import DropReason, EvictionReason, LimitAction, LimitName


# A hook is any function of one event; the events are told apart by their classes.
def note(event: Event) -> None:
    match event:
        case ConnectionOpened(connection=connection):
            assert_type(connection, Connection)
        case ConnectionEnded(closed=closed, evicted=evicted):
            assert_type(closed, ConnectionClosed)
            assert_type(evicted, EvictionReason | None)
        case MessagesDropped(reason=reason, count=count):
            assert_type(reason, DropReason)
            assert_type(count, int)
        case LimitReached(limit=limit, action=action, address=address):
            assert_type(limit, LimitName)
            assert_type(action, LimitAction)
            assert_type(address, str | None)
        case BackendLost(backend=backend, problem=problem):
            assert_type(backend, str)
            assert_type(problem, str)
        case BackendRegained(gap=gap):
            assert_type(gap, float)
        case _:
            assert_never(event)


class Recorder:
    """A hook may be an object, too."""

    def __call__(self, event: Event, /) -> None:
        """Take note of `event`."""


async def wait(event: Event) -> None:
    """An asynchronous function is no hook."""


hooks: list[Hook] = [note, Recorder()]
no_hooks: list[Hook] = [wait]  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]

# Every option has a type of its own; limits are passed by name.
ConnectionManager(
    limits=Limits(connections=100, trusted_proxies={"10.0.0.0/8"}, messages_per_second=0.5),
    heartbeat=Heartbeat(interval=10, message={"type": "ping"}, reply=None),
    idle_timeout=60,
    handler_grace=None,
    hooks=hooks,
)
Limits(100)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Limits(burst=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def limits_and_drains(connection: Connection, manager: ConnectionManager) -> None:
    try:
        await connection.join("tea")
    except LimitExceeded as error:
        assert_type(error.limit, LimitName)
        assert_type(error.retry_after, float | None)
    assert_type(await manager.drain(timeout=10, jitter=2.5), None)
    assert_type(manager.statistics().limited, dict[LimitName, int])
