"""What a manager must do, as plain dictionaries and lists: the model of `test_model.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

SEND_TIMEOUT = 10.0
EVICTION_GRACE = 1.0


@dataclass(eq=False)
class Peer:
    """
    One client and its connection.

    Attributes:
        user: Whose it is.
        blocked: Whether it reads nothing.
        broken: Whether every write to it fails.
        ended: The code with which it ended, and by whom; None while it is open.
        accepting: Whether its outbox takes messages.
        writing: The message that it blocks.
        queue: Messages that wait behind that one.
        senders: Messages of tasks that wait in `send()`, in the order they came.
        farewell: The close code that is still to be sent.
        got: What arrived, in order.
        got_code: The code of the close frame that arrived.
        heard: What its handler received, in order.
    """

    user: str | None
    blocked: bool = False
    broken: bool = False
    ended: tuple[int, str] | None = None
    accepting: bool = True
    writing: str | None = None
    queue: list[str] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    farewell: int | None = None
    got: list[str] = field(default_factory=list)
    got_code: int | None = None
    heard: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> list[str]:
        """All that waits in its outbox."""
        return self.queue if self.writing is None else [self.writing, *self.queue]


class Model:
    """
    Peers, and what becomes of each message for each of them.

    Attributes:
        peers: All there ever were.
        registered: Those that broadcasts reach, oldest first.
        rooms: Members by room, in the order of joining; no room is empty.
        handed: Messages ever handed to an outbox.
        sent: Messages ever written.
        received: Messages ever read from peers.
        published: Messages ever published.
        dropped: Messages that were dropped, by reason.
        evicted: Peers that were evicted, by cause.
    """

    def __init__(self, overflow: str, max_messages: int, max_bytes: int) -> None:
        self._overflow = overflow
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._now = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.peers: list[Peer] = []
        self.registered: list[Peer] = []
        self.rooms: dict[str, list[Peer]] = {}
        self.handed = 0
        self.sent = 0
        self.received = 0
        self.published = 0
        self.dropped: Counter[str] = Counter()
        self.evicted: Counter[str] = Counter()

    @property
    def queued(self) -> int:
        """Messages that wait now."""
        return sum(len(peer.waiting) for peer in self.peers)

    # What an app does.

    def connect(self, user: str | None, rooms: Iterable[str]) -> Peer:
        """Register a peer in `rooms`."""
        peer = Peer(user)
        self.peers.append(peer)
        self.registered.append(peer)
        for room in rooms:
            self.join(peer, room)
        return peer

    def forget(self, peer: Peer) -> None:
        """Take `peer` out of everything."""
        if peer in self.registered:
            self.registered.remove(peer)
        for room in list(self.rooms):
            self.leave(peer, room)

    def join(self, peer: Peer, room: str) -> None:
        """Put `peer` into `room`."""
        members = self.rooms.get(room, [])
        if peer in self.registered and peer not in members:
            self.rooms[room] = [*members, peer]

    def leave(self, peer: Peer, room: str) -> None:
        """Take `peer` out of `room`."""
        members = [member for member in self.rooms.get(room, []) if member is not peer]
        if members:
            self.rooms[room] = members
        else:
            self.rooms.pop(room, None)

    def publish(self, audience: Iterable[Peer], message: str, exclude: Collection[Peer]) -> None:
        """Send `message` to an audience."""
        self.published += 1
        for peer in list(audience):
            if peer not in exclude:
                self.put(peer, message)

    def send(self, peer: Peer, message: str) -> None:
        """Send `message` to `peer`, in its turn and when there is room."""
        if peer.senders or not self.has_room(peer, message):
            peer.senders.append(message)
            self._after(SEND_TIMEOUT, lambda: self._give_up_sending(peer, message))
        else:
            self.put(peer, message)

    def cancel_sender(self, peer: Peer, number: int) -> None:
        """Cancel one of the tasks that wait in `send()`."""
        del peer.senders[number]
        if number == 0:
            self._serve(peer)

    def close(self, peer: Peer, code: int) -> None:
        """Close `peer` after what is queued, if it is open."""
        if peer.ended is None:
            self._end(peer, code, "hub")
            self._stop(peer)
            self._start_farewell(peer, SEND_TIMEOUT)

    def abort(self, peer: Peer) -> None:
        """Drop `peer` at once, whatever state it is in."""
        if peer.ended is None:
            self._end(peer, 1006, "hub")
        peer.farewell = None
        self._discard(peer)

    # What a peer does.

    def hang_up(self, peer: Peer, code: int) -> None:
        """Let `peer` close with `code`."""
        if peer.ended is None:
            self._end(peer, code, "peer")
            self._discard(peer)

    def take(self, peer: Peer) -> None:
        """Let `peer` take the one message that it blocks, or the close frame, and block again."""
        if peer.writing is None:
            self._say_farewell(peer, takes=True)
            return
        if peer.broken:
            self._fail(peer)
            return
        peer.got.append(peer.writing)
        peer.writing = None
        self.sent += 1
        while peer.queue and peer.writing is None:
            self._write(peer, peer.queue.pop(0))
        self._say_farewell(peer)
        self._serve(peer)

    def read_on(self, peer: Peer) -> None:
        """Let `peer` read all that waits, and block no more."""
        peer.blocked = False
        self.take(peer)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self._now + seconds
        while due := [timer for timer in self._timers if timer[0] <= end]:
            timer = min(due, key=lambda timer: timer[0])  # the first made of those at one time
            self._timers.remove(timer)
            self._now = timer[0]
            timer[1]()
        self._now = end

    # The outbox.

    def has_room(self, peer: Peer, message: str) -> bool:
        """Whether the outbox of `peer` can take `message` now."""
        return not peer.queue or (
            len(peer.queue) < self._max_messages
            and sum(map(len, peer.queue)) + len(message) <= self._max_bytes
        )

    def put(self, peer: Peer, message: str) -> None:
        """Hand `message` to the outbox of `peer`."""
        self.handed += 1
        if not peer.accepting:
            self.dropped["closed"] += 1
        elif peer.writing is None:
            self._write(peer, message)
        elif self.has_room(peer, message):
            peer.queue.append(message)
        elif self._overflow == "drop_oldest":
            while not self.has_room(peer, message):
                peer.queue.pop(0)
                self.dropped["overflow"] += 1
            peer.queue.append(message)
        else:
            self.dropped["overflow"] += 1
            if self._overflow == "disconnect":
                self._cut_off(peer, "overflow")

    def _write(self, peer: Peer, message: str) -> None:
        if peer.blocked:
            peer.writing = message
            self._after(SEND_TIMEOUT, lambda: self._give_up_writing(peer, message))
        elif peer.broken:
            self.dropped["closed"] += 1
            self._fail(peer)
        else:
            peer.got.append(message)
            self.sent += 1

    def _serve(self, peer: Peer) -> None:
        """Let the tasks that wait in `send()` go on."""
        while peer.senders and (not peer.accepting or self.has_room(peer, peer.senders[0])):
            self.put(peer, peer.senders.pop(0))

    def _stop(self, peer: Peer) -> None:
        peer.accepting = False
        self._serve(peer)

    def _discard(self, peer: Peer) -> None:
        self._stop(peer)
        self.dropped["closed"] += len(peer.waiting)
        peer.writing, peer.queue = None, []

    # The end.

    def _end(self, peer: Peer, code: int, by: str) -> None:
        peer.ended = (code, by)
        self.forget(peer)

    def _fail(self, peer: Peer) -> None:
        """Find that a write to `peer` failed."""
        if peer.ended is None:
            self.evicted["write_failed"] += 1
            self._end(peer, 1006, "peer")
        self._discard(peer)
        self._say_farewell(peer)

    def _cut_off(self, peer: Peer, cause: str) -> None:
        self.evicted[cause] += 1
        self._end(peer, 1013, "hub")
        self._discard(peer)
        self._start_farewell(peer, EVICTION_GRACE)

    def _start_farewell(self, peer: Peer, grace: float) -> None:
        assert peer.ended is not None
        peer.farewell = peer.ended[0]
        self._after(grace, lambda: self._give_up_closing(peer))
        self._say_farewell(peer)

    def _say_farewell(self, peer: Peer, *, takes: bool = False) -> None:
        """Write the close frame, once it is its turn and `peer` takes it."""
        if peer.farewell is None or peer.waiting or (peer.blocked and not takes):
            return
        if not peer.broken:
            peer.got_code = peer.farewell
        peer.farewell = None

    # Time.

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((self._now + seconds, action))

    def _give_up_writing(self, peer: Peer, message: str) -> None:
        if peer.writing != message:
            return
        if peer.ended is None:
            self._cut_off(peer, "send_timeout")
        else:
            self._discard(peer)
            self._say_farewell(peer)

    def _give_up_sending(self, peer: Peer, message: str) -> None:
        if message in peer.senders:
            peer.senders.remove(message)
            self._cut_off(peer, "send_timeout")

    def _give_up_closing(self, peer: Peer) -> None:
        if peer.farewell is not None:
            self._discard(peer)
            peer.farewell = None
