"""What a manager's connections and rooms share."""

from __future__ import annotations

import asyncio
import logging
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from wshub._admission import Admission
from wshub._counters import Counters
from wshub._dismissals import Dismissals
from wshub._flush import Flush
from wshub._names import check_room_name
from wshub._registry import Registry, session_of
from wshub._relay import Relay
from wshub._tasks import TaskOwner
from wshub._tenure import Tenure
from wshub.backends.base import Receiver
from wshub.connection import Connection
from wshub.events import ConnectionOpened, LimitReached, Statistics
from wshub.exceptions import BackendUnavailable, HubError, LimitExceeded, OtherUser
from wshub.messages import Publication, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.websockets import WebSocket

    from wshub._admission import Seat
    from wshub._authorization import Authorization
    from wshub._clock import Clock
    from wshub._outbox import OutboxOptions
    from wshub._tenure import Revalidation
    from wshub._watch import WatchOptions
    from wshub.auth.principal import Principal
    from wshub.backends.base import Backend
    from wshub.events import Event, Hook, LimitAction, LimitName, SkipReason
    from wshub.exceptions import ClosedBy, RoomAction
    from wshub.limits import Limits
    from wshub.messages import Audience, Dismissal

__all__ = ("Hub", "find_connection")

_SCOPE_KEY = "wshub.connection"

logger = logging.getLogger("wshub")

SHUTDOWN_GRACE = 1.0
"""Seconds that a handler has at most once its server or its manager shuts down."""

QUIET_INTERVAL = 60.0
"""Seconds between two lines of one kind: whoever causes them can do so without end."""


class Hub:
    """Ties registry, backend, relay, counters and tasks of one manager together."""

    def __init__(
        self,
        backend: Backend,
        *,
        outbox_options: OutboxOptions,
        watch_options: WatchOptions,
        limits: Limits,
        read_ahead: int,
        handler_grace: float | None,
        hooks: Sequence[Hook],
        authorization: Authorization,
        revalidation: Revalidation | None,
        clock: Clock,
    ) -> None:
        self.backend = backend
        self.outbox_options = outbox_options
        self.watch_options = watch_options
        self.read_ahead = read_ahead
        self.clock = clock
        self.revalidation = revalidation
        self._authorization = authorization
        self._dismissals = Dismissals()
        self.counters: Counters = Counters()
        self.flush: Flush = Flush(outbox_options, self.counters, clock, self._abandon)
        self.tasks: TaskOwner = TaskOwner()
        self.registry: Registry = Registry(backend)
        self.admission: Admission = Admission(limits)
        self.stopping = False
        self._max_rooms = limits.rooms_per_connection
        self._handler_grace = handler_grace
        for hook in hooks:
            if iscoroutinefunction(hook):
                raise TypeError(f"{hook!r} is asynchronous, and hooks are called, not awaited")
        self._hooks = hooks
        self._quiet_until: dict[LimitName | SkipReason, float] = {}
        self._relay = Relay(self.registry, self.counters, self.flush, self._dismissals)
        self.backend.attach(Receiver(self._relay.deliver, self.report, self._skip))
        self.backend.subscribe("everyone", "")

    def register(self, connection: Connection) -> None:
        """Make `connection` part of every audience that it belongs to."""
        self.flush.enter(asyncio.get_running_loop())
        self.counters.opened += 1
        connection.websocket.scope[_SCOPE_KEY] = connection
        self.registry.add(connection)
        if self._hooks:
            self.report(ConnectionOpened(connection))

    def begin_tenure(self, connection: Connection, authenticated_at: float) -> None:
        """Watch over how long those behind a new `connection` may keep it."""
        self.turn_away(connection, authenticated_at)
        if connection.principal is not None:
            self._renew(connection, connection.principal)

    def turn_away(self, connection: Connection, authenticated_at: float) -> None:
        """Close a new `connection` whose user or session was dismissed since that time."""
        session = session_of(connection.principal)
        self._obey(connection, self._dismissals.find("user", connection.user, authenticated_at))
        self._obey(connection, self._dismissals.find("session", session, authenticated_at))

    async def dismiss(self, *orders: Dismissal) -> None:
        """Give orders to close connections to all workers, or to this one if that cannot be."""
        try:
            for order in orders:
                await self.backend.publish(order)
        except BackendUnavailable:
            for order in orders:
                await self._relay.deliver(order)
            raise

    def refresh(self, connection: Connection, principal: Principal) -> None:
        """Go on with a newer `principal` of the same user behind `connection`."""
        if principal.user != connection.user:
            raise OtherUser(connection.id)
        before, session = session_of(connection.principal), session_of(principal)
        self.registry.change_session(connection, principal)
        connection.principal = principal
        self._renew(connection, principal)
        if session != before:
            # It may have been logged out while the app looked at its token, and never comes back.
            self._obey(connection, self._dismissals.find("session", session, -inf))

    def _obey(self, connection: Connection, dismissal: Dismissal | None) -> None:
        if dismissal is not None:
            connection._link.start_closing(dismissal.code, dismissal.reason)

    def _renew(self, connection: Connection, principal: Principal) -> None:
        link = connection._link
        if link.tenure is None and link.closure is None:
            if principal.expires_at is None and self.revalidation is None:
                return
            link.tenure = Tenure(connection, link, self)
        if link.tenure is not None:
            link.tenure.renew(principal.expires_at)

    async def authorize(
        self, action: RoomAction, principal: Principal | None, user: str | None, room: str
    ) -> None:
        """Raise `AccessDenied` unless `principal`, or `user`, may do `action` in `room`."""
        await self._authorization.check(action, principal, user, room)

    async def authorize_sender(self, sender: Connection, room: str) -> None:
        """Raise unless `sender` may publish in `room`, and is still connected."""
        await self.authorize("publish", sender.principal, sender.user, room)
        sender._link.check_open()

    def forget(self, connection: Connection) -> None:
        """Take `connection` out of the registry and all rooms. Idempotent."""
        if self.registry.discard(connection):
            self.admission.release(connection._seat)

    def _abandon(self) -> None:
        """Give up all connections: their event loop was closed."""
        for connection in self.registry.find("everyone"):
            self.forget(connection)
            connection.outbox.abandon()

    async def enter(self, connection: Connection, rooms: Iterable[str]) -> None:
        """Put a new `connection` into its `rooms`; return when it will be reached in them."""
        names = list(rooms)
        for room in names:
            self._join(connection, room)
        if connection.user is not None:
            await self.backend.subscribed("user", connection.user)
        for room in names:
            await self.backend.subscribed("room", room)

    async def join(self, connection: Connection, room: str) -> None:
        """Put `connection` into `room`; return when it will be reached there."""
        self._join(connection, room)
        await self.backend.subscribed("room", room)

    def _join(self, connection: Connection, room: str) -> None:
        rooms = self.registry.rooms_of(connection)
        if check_room_name(room) not in rooms:
            try:
                self._check_rooms(len(rooms) + 1)
            except LimitExceeded as error:
                self.report_limit(error.limit, "refused", connection)
                raise
            self.registry.join(connection, room)

    async def leave(self, connection: Connection, room: str) -> None:
        """Take `connection` out of `room`."""
        self.registry.leave(connection, room)

    def rooms_of(self, connection: Connection) -> frozenset[str]:
        """Return the rooms that `connection` is in."""
        return frozenset(self.registry.rooms_of(connection))

    def members(self, room: str) -> list[Connection]:
        """Return the members of `room` in this process."""
        return self.registry.find("room", room)

    def admit(self, websocket: WebSocket, user: str | None, rooms: int) -> Seat:
        """
        Take a seat for a handshake of `user` that is to join so many `rooms`.

        Raises:
            LimitExceeded: There is none; counted, logged and told to hooks.
        """
        seat = self.admission.find_seat(websocket, user)
        try:
            self._check_rooms(rooms)
            self.admission.take(seat)
        except LimitExceeded as error:
            self._report_limit(error.limit, "refused", None, user, seat.address)
            raise
        return seat

    def handler_grace(self, by: ClosedBy) -> float | None:
        """Return the seconds that a handler has once its connection is over; None: no limit."""
        if self._handler_grace is not None and (self.stopping or by == "server"):
            return min(self._handler_grace, SHUTDOWN_GRACE)
        return self._handler_grace

    @property
    def has_hooks(self) -> bool:
        """Whether anybody wants to be told of events."""
        return bool(self._hooks)

    def report(self, event: Event) -> None:
        """Tell hooks of `event`; their errors are logged."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception:
                logger.exception("hook %r failed on %s", hook, type(event).__name__)

    def report_limit(self, limit: LimitName, action: LimitAction, connection: Connection) -> None:
        """Count, log and tell hooks that the peer of `connection` reached a limit."""
        self._report_limit(limit, action, connection, connection.user, connection._seat.address)

    def _report_limit(
        self,
        limit: LimitName,
        action: LimitAction,
        connection: Connection | None,
        user: str | None,
        address: str | None,
    ) -> None:
        self.counters.limited[limit] += 1
        who = f"connection {connection.id}" if connection else "a handshake"
        level = logging.INFO if action == "refused" and self._is_quiet(limit) else logging.WARNING
        logger.log(level, "%s reached the limit of %s: %s", who, limit, action)
        if self._hooks:
            self.report(LimitReached(limit, action, connection, user, address))

    def _skip(self, reason: SkipReason) -> None:
        """Count and log what came from the backend and cannot be read."""
        self.counters.skipped[reason] += 1
        if not self._is_quiet(reason):
            logger.warning("skipped what came from %s: %s", type(self.backend).__name__, reason)

    def _is_quiet(self, kind: LimitName | SkipReason) -> bool:
        now = self.clock.time()
        if now < self._quiet_until.get(kind, now):
            return True
        self._quiet_until[kind] = now + QUIET_INTERVAL
        return False

    def _check_rooms(self, count: int) -> None:
        if self._max_rooms is not None and count > self._max_rooms:
            raise LimitExceeded("rooms_per_connection", self._max_rooms)

    async def publish(
        self,
        audience: Audience,
        name: str,
        message: object,
        exclude: Iterable[Connection | WebSocket | str] = (),
    ) -> None:
        """Encode `message` once and hand it to the backend."""
        publication = Publication(audience, name, encode(message), _ids(exclude))
        self.counters.published += 1
        try:
            await self.backend.publish(publication)
        except HubError:
            self.counters.published -= 1
            raise

    def statistics(self) -> Statistics:
        """Return the figures of this moment."""
        counters = self.counters
        return Statistics(
            connections=self.registry.connection_count,
            rooms=self.registry.room_count,
            users=self.registry.user_count,
            queued=counters.queued,
            opened=counters.opened,
            received=counters.received,
            unread=counters.unread,
            published=counters.published,
            sent=counters.sent,
            dropped=dict(counters.dropped),
            evicted=dict(counters.evicted),
            limited=dict(counters.limited),
            skipped=dict(counters.skipped),
        )


def find_connection(websocket: WebSocket) -> Connection | None:
    """Return the connection that a manager made of `websocket`, also when it is over."""
    connection: Connection | None = websocket.scope.get(_SCOPE_KEY)
    return connection


def _ids(exclude: Iterable[Connection | WebSocket | str]) -> frozenset[str]:
    # A WebSocket can be iterated over too, and would name the keys of its scope.
    if isinstance(exclude, str | HTTPConnection | Connection):
        raise TypeError("exclude is a collection; pass exclude=[connection]")
    return frozenset(filter(None, map(_id_of, exclude)))


def _id_of(excluded: Connection | WebSocket | str) -> str | None:
    """Return the id to exclude; None for a WebSocket that was never registered."""
    if isinstance(excluded, str):
        return excluded
    if isinstance(excluded, Connection):
        return excluded.id
    connection = find_connection(excluded)
    return None if connection is None else connection.id
