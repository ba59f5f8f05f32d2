"""The manager: registers connections and sends to many of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from typing_extensions import TypeVar

from wshub._authorization import Authorization
from wshub._clock import LoopClock
from wshub._dismissals import dismiss_user
from wshub._drain import close_connections, drain_connections
from wshub._hub import Hub
from wshub._lifecycle import manage_connection
from wshub._names import check_room_name, check_user_id
from wshub._outbox import OutboxOptions
from wshub._tutorial import TutorialManager
from wshub._watch import WatchOptions
from wshub.auth.principal import hash_session
from wshub.backends.base import Backend
from wshub.backends.memory import MemoryBackend
from wshub.exceptions import CloseCode, check_close_code, cut_reason
from wshub.limits import Limits
from wshub.messages import Dismissal
from wshub.rooms import Room

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractAsyncContextManager

    from starlette.websockets import WebSocket

    from wshub._clock import Clock
    from wshub._tenure import Revalidation
    from wshub._watch import Heartbeat
    from wshub.auth.principal import Principal
    from wshub.auth.room_rules import RoomRule
    from wshub.backends.base import Health
    from wshub.connection import Connection
    from wshub.events import Hook, Statistics

__all__ = ("ConnectionManager",)

StateT = TypeVar("StateT", default=None)


class ConnectionManager(TutorialManager):
    """
    Registers connections and sends to one, to a room, to a user or to all of them.

    It needs neither a start nor options. One manager serves one event loop, to which all its
    methods belong.

    Args:
        backend: Carries messages between workers; by default `MemoryBackend()`, which reaches
            this process only.
        outbox: Bounds of the queue in front of each peer.
        read_ahead: Messages that are read from a peer before its handler takes them, and no
            further once they are `outbox.max_bytes` long. With so many waiting nothing more is
            read, and that the peer left is seen only when a write fails or the handler goes on.
        limits: How many connections, rooms and messages are taken.
        heartbeat: A message that every client gets now and then; by default none is sent.
        idle_timeout: Seconds after which a peer that sent nothing, not even an answer to a
            heartbeat, is closed with 3008; None: it may be silent for ever.
        handler_grace: Seconds that the block of `connection()` may go on once its connection is
            over, then it is cancelled; at most 1 when the server or the manager shuts down.
            None: it is never cancelled.
        authorize_join: Says who may join which room; asked before each join, and for `rooms=`
            before the WebSocket is accepted. By default it is up to the app.
        authorize_publish: Says who may publish in which room; asked for `broadcast(sender=…)`,
            which nobody may by default.
        revalidation: Asks now and then whether principals are still welcome; by default nobody
            does.
        hooks: Functions to be called with every event, as `ConnectionEnded`.
        clock: Tells the time for all timeouts; for tests.

    Raises:
        ValueError: A number is out of its range, or `idle_timeout` leaves no time to answer a
            heartbeat.
        TypeError: A hook is asynchronous, or the backend lacks a method.
    """

    def __init__(
        self,
        *,
        backend: Backend | None = None,
        outbox: OutboxOptions | None = None,
        read_ahead: int = 64,
        limits: Limits | None = None,
        heartbeat: Heartbeat | None = None,
        idle_timeout: float | None = None,
        handler_grace: float | None = 10.0,
        authorize_join: RoomRule | None = None,
        authorize_publish: RoomRule | None = None,
        revalidation: Revalidation | None = None,
        hooks: Iterable[Hook] = (),
        clock: Clock | None = None,
    ) -> None:
        if read_ahead < 1:
            raise ValueError(f"read_ahead must be at least 1 message, not {read_ahead}")
        if handler_grace is not None and not handler_grace >= 0:
            raise ValueError(f"handler_grace must be 0 or more seconds, not {handler_grace!r}")
        backend = backend or MemoryBackend()
        if not isinstance(backend, Backend):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{type(backend).__name__} is no backend: see wshub.backends.Backend")
        limits = limits or Limits()
        self._hub = Hub(
            backend,
            outbox_options=outbox or OutboxOptions(),
            watch_options=WatchOptions(limits, heartbeat, idle_timeout),
            limits=limits,
            read_ahead=read_ahead,
            handler_grace=handler_grace,
            hooks=tuple(hooks),
            authorization=Authorization(join=authorize_join, publish=authorize_publish),
            revalidation=revalidation,
            clock=clock or LoopClock(),
        )

    def connection(
        self,
        websocket: WebSocket,
        *,
        user: str | None = None,
        principal: Principal | None = None,
        rooms: Iterable[str] = (),
        subprotocol: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        state: StateT = None,  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    ) -> AbstractAsyncContextManager[Connection[StateT]]:
        """
        Accept `websocket` and keep it registered inside an `async with` block.

        On the way out the connection leaves its rooms and closes: with 1000 on return, with the
        exception's own code on `WebSocketException`, with 1011 on any other error (logged and
        raised on), with 1001 on cancellation. That the peer left is no error: the block then
        ends quietly and the code after it runs. A block that waits for something else, and so
        does not see that, is cancelled after `handler_grace` and ends quietly too. For a peer
        that left during the handshake the connection is over from the start.

        Args:
            websocket: Not accepted yet, or accepted by the app itself.
            user: Id of the user behind it, for `send_to_user()` and `disconnect_user()`.
            principal: What `authenticate()` returned, in place of `user`. When it expires the
                connection closes with 3000, unless `Connection.refresh()` gave it a newer one.
            rooms: Names of rooms to join at once.
            subprotocol: The one to accept of `websocket.scope["subprotocols"]`; by default
                `"wshub"` if it is among them (see `bearer_subprotocol()`).
            headers: Extra headers for the handshake response.
            state: The app's own object, kept as `connection.state`.

        Raises:
            AlreadyConnected: The WebSocket is registered already, or was accepted before and
                `subprotocol` or `headers` come too late.
            LimitExceeded: There are too many connections or rooms; see `Limits`. The WebSocket
                is then not accepted.
            Rejection: The manager is shutting down, or the principal has expired; the WebSocket
                is then not accepted.
            AccessDenied: `authorize_join` does not let it into a room; it is then not accepted.
            InvalidRoomName: A room name is empty or too long, or has control characters; the
                WebSocket is then not accepted.
            InvalidUserId: The same of `user`.
        """
        return manage_connection(
            self._hub,
            websocket,
            user=user,
            principal=principal,
            rooms=rooms,
            subprotocol=subprotocol,
            headers=headers,
            state=state,
        )

    def room(self, name: str) -> Room:
        """
        Return the room called `name`. It need not have members.

        Raises:
            InvalidRoomName: The name is empty or too long, or has control characters.
        """
        return Room(check_room_name(name), self._hub)

    async def broadcast(
        self,
        message: object,
        *,
        room: str | None = None,
        exclude: Iterable[Connection | WebSocket | str] = (),
        sender: Connection | None = None,
    ) -> None:
        """
        Send `message` to the members of `room`, or to everyone.

        Encoded once. Returns when the backend has taken it, without waiting for a recipient, and
        never raises because of one. All recipients see all broadcasts in the same order.
        Cancelling while earlier broadcasts are still being delivered sends nothing; later it
        changes nothing.

        Args:
            message: str → text frame, bytes-like → binary frame, anything else → JSON text.
            room: Its name. A room without members reaches nobody.
            exclude: Connections, WebSockets or connection ids that do not get it.
            sender: Who asked for it, where the room is one that a client named: sent only if
                `authorize_publish` lets them. None: the app itself speaks.

        Raises:
            AccessDenied: The sender may not publish in the room. Nothing was sent.
            ConnectionClosed: The sender's connection is over. Nothing was sent.
            MessageNotEncodable: Nothing was sent to anyone.
            InvalidRoomName: The name is empty or too long, or has control characters.
            BackendUnavailable: The backend cannot take it now. Nothing was sent, unless the
                error's `uncertain` says otherwise.
            PayloadTooLarge: It is over the backend's limit. Nothing was sent.
        """
        if sender is not None:
            if room is None:
                raise TypeError("a sender publishes in rooms; pass room=")
            await self._hub.authorize_sender(sender, room)
        if room is None:
            await self._hub.publish("everyone", "", message, exclude)
        else:
            await self._hub.publish("room", check_room_name(room), message, exclude)

    async def send_to_user(self, user: str, message: object) -> None:
        """
        Send `message` to every connection of `user`; nobody, if there is none.

        Waits and raises as `broadcast()` does, with InvalidUserId for a bad `user`.
        """
        await self._hub.publish("user", check_user_id(user), message)

    async def disconnect_user(
        self, user: str, *, code: int = CloseCode.POLICY_VIOLATION, reason: str = ""
    ) -> None:
        """
        Close every connection of `user`, after what was sent to it before.

        Returns when the backend has taken the order; the closing goes on in the background. Who is
        just connecting, and was authenticated before this call, is closed too.

        Args:
            user: Id of the user; one without connections is fine.
            code: Close code.
            reason: For the peer to read; cut to 123 bytes of UTF-8.

        Raises:
            ValueError: The code cannot be sent (RFC 6455 §7.4.1).
            InvalidUserId: The id is empty or too long, or has control characters.
            BackendUnavailable: The backend cannot take it now. Connections of this worker are
                closed nevertheless.
        """
        await self._hub.dismiss(*dismiss_user(user, code, reason))

    async def disconnect_session(
        self,
        session_id: str,
        *,
        code: int = CloseCode.UNAUTHORIZED,
        reason: str = "logged out",
    ) -> None:
        """
        Close every connection of one log-in, as `disconnect_user()` does for all of a user's.

        It is that of the principals with this `session_id`. Who is just connecting with it, and
        was authenticated before this call, is closed too.
        """
        name = hash_session(session_id)
        order = Dismissal("session", name, check_close_code(code), cut_reason(reason))
        await self._hub.dismiss(order)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None, None]:  # noqa: ARG002  (Starlette passes it)
        """
        Start the backend, and at the end close every connection with 1012 and stop it.

        Pass it as `FastAPI(lifespan=manager.lifespan)`, or enter it inside a lifespan of your
        own. The default backend works without it.

        Raises:
            BackendRefused: The backend's server refuses this configuration, say its
                password. One that cannot be reached is tried again in the background.
        """
        await self._hub.backend.start()
        try:
            yield
        finally:
            await close_connections(self._hub)
            await self._hub.backend.stop()

    async def drain(self, *, timeout: float = 30.0, jitter: float = 5.0) -> None:
        """
        Say goodbye to everyone, spread out so that clients do not all come back at once.

        From now on handshakes are refused with 1012 (HTTP 503), until a lifespan ends. Each
        connection is sent what is queued and closed with 1012 and a reason that ends in
        `retry-after=2.5`: seconds, random up to `jitter`, after which the client should
        reconnect. Call it before the server stops: from the route that your orchestrator asks
        to (Kubernetes: preStop), or a signal handler. Cancelling it leaves open who was not
        told yet, and handshakes are taken again.

        Args:
            timeout: Seconds after which connections that are not closed yet are aborted. At
                half of them everyone has been told.
            jitter: Seconds over which the goodbyes, and the reconnects, are spread.

        Raises:
            ValueError: `timeout` is not positive, or `jitter` is negative.
        """
        await drain_connections(self._hub, timeout=timeout, jitter=jitter)

    def health(self) -> Health:
        """Say whether messages travel between workers now, for a readiness endpoint."""
        return self._hub.backend.health()

    def statistics(self) -> Statistics:
        """Return the figures of this manager in this process."""
        return self._hub.statistics()
