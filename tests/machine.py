"""A manager beside its model: does the same to both, in any order, and compares."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.model import SEND_TIMEOUT, Model, Peer
from tests.subject import Subject
from wshub import (
    ConnectionClosed,
    ConnectionEnded,
    ConnectionManager,
    ConnectionOpened,
    MessagesDropped,
    OutboxFull,
    OutboxOptions,
)
from wshub.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from wshub import Connection, Event

T = TypeVar("T")

MAX_PEERS = 4
"""Registered at a time."""

USERS = (None, "ann", "bob")
ROOMS = ("tea", "milk")
CODES = st.sampled_from([1000, 1008, 4000])
SIZES = st.sampled_from([10, 10, 10, 45])
"""Of messages. One of the larger ones leaves little room in an outbox, two do not fit."""

TURNS = 30
"""Turns of the event loop in which everything that is set going has to be over."""

TURNS_OF_A_SENDER = 5
"""Turns more for each who waits for room: they go on one after the other."""


async def call(function: Callable[..., T], *arguments: object) -> T:
    """Call `function` in the event loop."""
    return function(*arguments)


async def take_turns(more: int = 0) -> None:
    """Let everything run that can."""
    for _ in range(TURNS + more):
        await asyncio.sleep(0)


class Machine(RuleBasedStateMachine):
    """Does the same to a manager and to the model, and compares."""

    new_loop: Callable[[], asyncio.AbstractEventLoop]
    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=self.new_loop)
        self.subjects: dict[Peer, Subject] = {}
        self.events: list[Event] = []
        self.number = 0

    @initialize(
        overflow=st.sampled_from(["disconnect", "drop_oldest", "drop_newest"]),
        max_messages=st.integers(1, 3),
    )
    def begin(self, overflow: Any, max_messages: int) -> None:
        max_bytes = 50
        self.clock = FakeClock()
        self.model = Model(overflow, max_messages, max_bytes)
        self.manager = ConnectionManager(
            outbox=OutboxOptions(
                max_messages=max_messages,
                max_bytes=max_bytes,
                overflow=overflow,
                send_timeout=SEND_TIMEOUT,
            ),
            clock=self.clock,
            hooks=[self.events.append],
        )

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine`, and what it sets going."""
        result = self.runner.run(coroutine)
        waiting = sum(subject.still_sending() for subject in self.subjects.values())
        self.runner.run(take_turns(waiting * TURNS_OF_A_SENDER))
        return result

    def text(self, size: int) -> str:
        """Return a message that no other is like."""
        self.number += 1
        return f"{self.number}".ljust(size, ".")

    # The manager.

    @precondition(lambda self: len(self.model.registered) < MAX_PEERS)
    @rule(
        target=peers,
        user=st.sampled_from(USERS),
        rooms=st.lists(st.sampled_from(ROOMS), max_size=2),
    )
    def connect(self, user: str | None, rooms: list[str]) -> Peer:
        subject = self.run(call(Subject, self.manager, user, rooms))
        peer = self.model.connect(user, rooms)
        self.subjects[peer] = subject
        return peer

    @rule(
        room=st.sampled_from([None, *ROOMS]),
        size=SIZES,
        excluded=st.one_of(st.none(), peers),
        form=st.sampled_from(["connection", "websocket", "id"]),
    )
    def broadcast(self, room: str | None, size: int, excluded: Peer | None, form: str) -> None:
        message, exclude = self.text(size), []
        if excluded is not None:
            connection = self.subjects[excluded].connection
            exclude = [connection if form == "connection" else getattr(connection, form)]
        self.run(self.manager.broadcast(message, room=room, exclude=exclude))
        audience = self.model.registered if room is None else self.model.rooms.get(room, [])
        self.model.publish(audience, message, {excluded} if excluded else ())

    @rule(user=st.sampled_from(USERS[1:]), size=SIZES)
    def send_to_user(self, user: str, size: int) -> None:
        message = self.text(size)
        self.run(self.manager.send_to_user(user, message))
        self.model.publish([p for p in self.model.registered if p.user == user], message, ())

    @rule(user=st.sampled_from(USERS[1:]), code=CODES)
    def disconnect_user(self, user: str, code: int) -> None:
        self.run(self.manager.disconnect_user(user, code=code))
        for peer in [peer for peer in self.model.registered if peer.user == user]:
            self.model.close(peer, code)

    @rule(peer=peers)
    def disconnect(self, peer: Peer) -> None:
        self.manager.disconnect(self.subjects[peer].sink.websocket)
        self.model.forget(peer)

    # One connection.

    @rule(peer=peers, room=st.sampled_from(ROOMS))
    def join(self, peer: Peer, room: str) -> None:
        self.run(self.unless_over(peer, self.subjects[peer].connection.join(room)))
        self.model.join(peer, room)

    @rule(peer=peers, room=st.sampled_from(ROOMS))
    def leave(self, peer: Peer, room: str) -> None:
        self.run(self.subjects[peer].connection.leave(room))
        self.model.leave(peer, room)

    @rule(peer=peers, size=SIZES)
    def send(self, peer: Peer, size: int) -> None:
        message = self.text(size)
        self.run(call(self.subjects[peer].start_to_send, message))
        if peer.ended is None:
            self.model.send(peer, message)

    @precondition(lambda self: self.waiting_senders())
    @rule(number=st.integers(0, 5))
    def cancel_a_sender(self, number: int) -> None:
        waiting = self.waiting_senders()
        peer, position = waiting[number % len(waiting)]
        self.run(call(self.subjects[peer].senders[position].cancel))
        self.model.cancel_sender(peer, position)

    @rule(peer=peers, size=SIZES)
    def send_nowait(self, peer: Peer, size: int) -> None:
        message, connection = self.text(size), self.subjects[peer].connection
        open_before, has_room = peer.ended is None, self.model.has_room(peer, message)
        use = call(connection.send_nowait, message)
        if open_before and not has_room:
            with pytest.raises(OutboxFull):
                self.run(use)
        else:
            self.run(self.unless_over(peer, use))
        if open_before and has_room:
            self.model.put(peer, message)

    @rule(peer=peers, code=CODES, how=st.sampled_from(["close", "abort", "return", "hang up"]))
    def end(self, peer: Peer, code: int, how: str) -> None:
        """End it in one of the ways that leave its messages alone, or not."""
        if how == "close":
            self.close(peer, code)
        elif how == "abort":
            self.abort(peer)
        elif how == "return":
            self.let_the_handler_return(peer)
        else:
            self.hang_up(peer, code)

    # A peer.

    @rule(peer=peers)
    def say(self, peer: Peer) -> None:
        self.hear(peer, self.text(10))

    @rule(peer=peers, sizes=st.lists(SIZES, max_size=6))
    def stall(self, peer: Peer, sizes: list[int]) -> None:
        self.subjects[peer].block()
        peer.blocked = True
        for size in sizes:
            self.send(peer, size)

    @rule(peer=peers)
    def take_one(self, peer: Peer) -> None:
        self.take(peer, on=False)

    @rule(peer=peers)
    def read_on(self, peer: Peer) -> None:
        self.take(peer, on=True)

    @rule(peer=peers)
    def break_down(self, peer: Peer) -> None:
        self.subjects[peer].sink.fault = OSError("gone")
        peer.broken = True

    @rule(peer=peers)
    def stall_and_overflow(self, peer: Peer) -> None:
        """Evict it, as far as that is the policy."""
        self.stall(peer, [])
        for _ in range(5):
            self.broadcast(None, 10, None, "id")

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0]))
    def advance(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))
        self.model.advance(seconds)

    # Helpers.

    def close(self, peer: Peer, code: int) -> None:
        closing = self.run(call(self.subjects[peer].start_to_close, code))
        self.model.close(peer, code)
        assert closing.done() is (peer.farewell is None)

    def abort(self, peer: Peer) -> None:
        self.run(call(self.subjects[peer].connection.abort))
        self.model.abort(peer)

    def let_the_handler_return(self, peer: Peer) -> None:
        if self.hear(peer, "bye"):
            self.model.close(peer, 1000)

    def hang_up(self, peer: Peer, code: int) -> None:
        self.subjects[peer].sink.events.put_nowait({"type": "websocket.disconnect", "code": code})
        self.run(take_turns())
        self.model.hang_up(peer, code)

    def hear(self, peer: Peer, message: str) -> bool:
        """Let an open `peer` say something."""
        if peer.ended is not None:
            return False
        self.subjects[peer].sink.events.put_nowait({"type": "websocket.receive", "text": message})
        self.run(take_turns())
        self.model.received += 1
        peer.heard.append(message)
        return True

    def take(self, peer: Peer, *, on: bool) -> None:
        """Let a stalled `peer` take what it blocks, and read on."""
        if not peer.blocked:
            return
        self.run(call(partial(self.subjects[peer].take, on=on)))
        if on:
            self.model.read_on(peer)
        else:
            self.model.take(peer)

    def waiting_senders(self) -> list[tuple[Peer, int]]:
        """Return which tasks wait in `send()`, by peer and position."""
        return [(peer, n) for peer in self.model.peers for n in range(len(peer.senders))]

    async def unless_over(self, peer: Peer, use: Coroutine[Any, Any, object]) -> None:
        """Await `use`, which raises if, and only if, the connection is over by then."""
        connection = self.subjects[peer].connection
        raised: ConnectionClosed | None = None
        try:
            await use
        except ConnectionClosed as closed:
            raised = closed
        assert str(raised) == str(connection.closed)

    @invariant()
    def agrees(self) -> None:
        self.agrees_about_each_peer()
        self.agrees_about_who_is_where()
        self.agrees_about_the_figures()
        self.has_told_its_hooks()

    def agrees_about_each_peer(self) -> None:
        for peer, subject in self.subjects.items():
            connection, closed = subject.connection, subject.connection.closed
            assert (None if closed is None else (closed.code, closed.by)) == peer.ended
            assert connection.rooms == {
                room for room, members in self.model.rooms.items() if peer in members
            }
            assert (subject.got, subject.got_code) == (peer.got, peer.got_code)
            assert subject.heard == peer.heard
            assert connection.outbox.messages == len(peer.waiting)
            assert connection.outbox.bytes == sum(map(len, peer.queue))
            assert subject.still_sending() == len(peer.senders)
            assert peer.ended is None or subject.handler.done() is (peer.farewell is None)

    def agrees_about_who_is_where(self) -> None:
        def known(members: Iterable[Peer]) -> list[Connection]:
            return [self.subjects[member].connection for member in members]

        assert self.manager.active_connections == [
            connection.websocket for connection in known(self.model.registered)
        ]
        for room in ROOMS:
            assert self.manager.room(room).members == known(self.model.rooms.get(room, []))

    def agrees_about_the_figures(self) -> None:
        figures, model = self.manager.statistics(), self.model
        assert figures.connections == len(model.registered)
        assert figures.rooms == len(model.rooms)
        assert figures.users == len({peer.user for peer in model.registered} - {None})
        assert (figures.opened, figures.published) == (len(model.peers), model.published)
        assert (figures.received, figures.unread) == (model.received, 0)
        assert (figures.sent, figures.queued) == (model.sent, model.queued)
        assert Counter(figures.dropped) == model.dropped
        assert Counter(figures.evicted) == model.evicted
        assert figures.sent + figures.queued + sum(figures.dropped.values()) == model.handed

    def has_told_its_hooks(self) -> None:
        told = Counter(type(event) for event in self.events)
        assert told[ConnectionOpened] == len(self.model.peers)
        assert told[ConnectionEnded] == sum(peer.ended is not None for peer in self.model.peers)
        dropped: Counter[str] = Counter()
        evicted: Counter[str] = Counter()
        for event in self.events:
            if isinstance(event, MessagesDropped):
                dropped[event.reason] += event.count
            elif isinstance(event, ConnectionEnded) and event.evicted is not None:
                evicted[event.evicted] += 1
        assert (dropped, evicted) == (self.model.dropped, self.model.evicted)

    def teardown(self) -> None:
        """Let everyone go; nothing stays behind."""
        with self.runner:
            for peer in self.subjects:
                self.read_on(peer)
                self.hang_up(peer, 1001)
            self.advance(2 * SEND_TIMEOUT)
            self.agrees()
            loop = self.runner.get_loop()
            assert not asyncio.all_tasks(loop)
            assert self.clock.waiting == 0
            assert self.manager.active_connections == []
