"""Publishing from outside the app: from a thread, a task of Celery, a job of cron, a shell."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import TYPE_CHECKING

from wshub._dismissals import dismiss_user
from wshub._loop_thread import LoopThread
from wshub._names import check_room_name, check_user_id
from wshub.backends.base import Receiver
from wshub.backends.memory import MemoryBackend
from wshub.exceptions import BackendUnavailable, CloseCode
from wshub.messages import Publication, encode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

    from wshub.backends.base import Backend
    from wshub.messages import Envelope

__all__ = ("Publisher", "SyncPublisher")

TIMEOUT = 10.0

GRACE = 2.0
"""Seconds more that a thread waits for another that has a deadline of its own."""

CLOSED = "this publisher is closed; make another one"
_starting = threading.Lock()
"""Held by whoever makes or ends the thread of a session: never while the process is forked."""

if hasattr(os, "register_at_fork"):  # pragma: no branch  (not on Windows)
    os.register_at_fork(
        before=_starting.acquire,
        after_in_parent=_starting.release,
        after_in_child=_starting.release,
    )

FORKED = (
    "this publisher was used before the process was forked, and its connection belongs to the "
    "parent; make it, or use it for the first time, in the child"
)


class Publisher:
    """
    Publishes to the connections of an app, from any process that reaches the same backend.

    All methods may be called from any thread and any event loop, at the same time; what one of
    them publishes, one call after the other, arrives in that order. The connection is kept by a
    thread of this publisher, from the first call until `close()`, which `async with` calls, too;
    both begin by connecting. A child that is forked needs a publisher that its parent has not
    used yet. Inside the app its manager does the same without a thread.

    Args:
        backend: One of its own, with the URL and the prefix of the app's; not in memory.
        timeout: Seconds that a call waits at most, whatever the backend does.

    Attributes:
        sync: The same, without `await`.

    Raises:
        ValueError: The backend is in memory, and so reaches no other process.
        RuntimeError: The backend has a manager, or another publisher.
    """

    sync: SyncPublisher

    def __init__(self, backend: Backend, *, timeout: float = TIMEOUT) -> None:
        self._session = _Session(backend, timeout)
        self.sync = SyncPublisher(self._session)

    async def __aenter__(self) -> Self:
        try:
            await self._session.wait(None)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def broadcast(
        self, message: object, *, room: str | None = None, exclude: Iterable[str] = ()
    ) -> None:
        """
        Send `message` to the members of `room`, or to everyone.

        Returns when the backend has taken it. Cancelling withdraws it, unless it is on its way.

        Args:
            message: str → text frame, bytes-like → binary frame, anything else → JSON text.
            room: Its name.
            exclude: Ids of connections that do not get it.

        Raises:
            MessageNotEncodable: Nothing was sent to anyone.
            InvalidRoomName: The name is empty or too long, or has control characters.
            BackendUnavailable: The backend cannot take it now. Nothing was sent, unless the
                error's `uncertain` says otherwise. BackendRefused: nor will it later.
            PayloadTooLarge: It is over the backend's limit. Nothing was sent.
            RuntimeError: This publisher is closed, or was used before a fork.
        """
        await self._publish(_to_room(message, room, exclude))

    async def send_to_user(self, user: str, message: object) -> None:
        """Send `message` to every connection of `user`. Waits and raises as `broadcast()` does."""
        await self._publish(_to_user(user, message))

    async def disconnect_user(
        self, user: str, *, code: int = CloseCode.POLICY_VIOLATION, reason: str = ""
    ) -> None:
        """
        Close every connection of `user`, after what was sent to it before.

        Args:
            user: Id of the user.
            code: Close code.
            reason: For the peer to read; cut to 123 bytes of UTF-8.

        Raises:
            ValueError: The code cannot be sent (RFC 6455 §7.4.1).
            InvalidUserId: The id is empty or too long, or has control characters.
            BackendUnavailable: As `broadcast()` does.
        """
        for order in dismiss_user(user, code, reason):
            await self._publish(order)

    async def close(self) -> None:
        """Let go of the connection and the thread. Idempotent; bounded in time."""
        await asyncio.to_thread(self._session.close)

    async def _publish(self, envelope: Envelope) -> None:
        await self._session.wait(envelope)


class SyncPublisher:
    """
    The verbs of a `Publisher` for code that cannot `await`: they block the calling thread.

    It belongs to its publisher: closing one closes both.
    """

    def __init__(self, session: _Session) -> None:
        self._session = session

    def __enter__(self) -> Self:
        try:
            self._session.run(None)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def broadcast(
        self, message: object, *, room: str | None = None, exclude: Iterable[str] = ()
    ) -> None:
        """Send `message` to the members of `room`, or to everyone; see `Publisher`."""
        self._session.run(_to_room(message, room, exclude))

    def send_to_user(self, user: str, message: object) -> None:
        """Send `message` to every connection of `user`; see `Publisher`."""
        self._session.run(_to_user(user, message))

    def disconnect_user(
        self, user: str, *, code: int = CloseCode.POLICY_VIOLATION, reason: str = ""
    ) -> None:
        """Close every connection of `user`; see `Publisher`."""
        for order in dismiss_user(user, code, reason):
            self._session.run(order)

    def close(self) -> None:
        """Let go of the connection and the thread. Idempotent; bounded in time."""
        self._session.close()


class _Session:
    """A backend at work in a thread of its own, for all threads and loops that publish."""

    def __init__(self, backend: Backend, timeout: float) -> None:
        if isinstance(backend, MemoryBackend):
            raise ValueError(  # noqa: TRY004  (of the right type, and of no use)
                "MemoryBackend reaches no other process; use the backend of the app"
            )
        if not timeout > 0:
            raise ValueError(f"timeout must be positive, not {timeout!r}")
        backend.attach(Receiver(_deliver_nothing, _ignore, _ignore))
        self._backend = backend
        self._timeout = timeout
        self._thread: LoopThread | None = None
        self._pid = 0
        self._starting = asyncio.Lock()
        self._started = False
        self._closed = False

    def submit(self, envelope: Envelope | None) -> Future[None]:
        """Begin to publish `envelope`, if there is one; starts the backend if need be."""
        if self._thread is not None and self._pid != os.getpid():
            raise RuntimeError(FORKED)
        with _starting:
            if self._closed:
                raise RuntimeError(CLOSED)
            if self._thread is None:
                self._thread = LoopThread("wshub Publisher")
                self._pid = os.getpid()
                atexit.register(self.close)
            return self._thread.submit(self._publish(envelope))

    async def wait(self, envelope: Envelope | None) -> None:
        """Do as `submit()`, and wait until it is done."""
        try:
            async with asyncio.timeout(self._timeout + GRACE):
                await asyncio.wrap_future(self.submit(envelope))
        except TimeoutError:
            raise self._late(uncertain=envelope is not None) from None

    def run(self, envelope: Envelope | None) -> None:
        """Do as `submit()`, and block until it is done."""
        future = self.submit(envelope)
        try:
            future.result(self._timeout + GRACE)
        except TimeoutError:
            future.cancel()
            raise self._late(uncertain=envelope is not None) from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the backend and end the thread."""
        if self._thread is not None and self._pid != os.getpid():
            return  # all that is the parent's
        with _starting:
            thread, self._thread = self._thread, None
            self._closed = True
        if thread is None:
            return
        atexit.unregister(self.close)
        try:
            thread.submit(self._stop()).result(self._timeout + GRACE)
        finally:
            thread.end(GRACE)

    async def _publish(self, envelope: Envelope | None) -> None:
        uncertain = False
        try:
            async with asyncio.timeout(self._timeout):
                await self._start()
                if envelope is not None:
                    uncertain = True
                    await self._backend.publish(envelope)
        except TimeoutError:
            raise self._late(uncertain=uncertain) from None

    async def _start(self) -> None:
        async with self._starting:
            if self._closed:
                raise RuntimeError(CLOSED)
            if self._started:
                return
            await self._backend.start()
            self._started = True

    def _late(self, *, uncertain: bool) -> BackendUnavailable:
        problem = f"it did not answer within {self._timeout:g} seconds"
        return BackendUnavailable(type(self._backend).__name__, problem, uncertain=uncertain)

    async def _stop(self) -> None:
        async with asyncio.timeout(self._timeout):
            await self._backend.stop()


async def _deliver_nothing(_: Envelope) -> None:
    """Deliver to nobody: there are no connections here, and no subscriptions."""


def _ignore(_: object) -> None:
    """Tell nobody: calls raise what they run into."""


def _to_room(message: object, room: str | None, exclude: Iterable[str]) -> Publication:
    if isinstance(exclude, str):
        raise TypeError("exclude is a collection; pass exclude=[id]")
    left_out = frozenset(exclude)
    if room is None:
        return Publication("everyone", "", encode(message), left_out)
    return Publication("room", check_room_name(room), encode(message), left_out)


def _to_user(user: str, message: object) -> Publication:
    return Publication("user", check_user_id(user), encode(message))
