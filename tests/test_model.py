"""A manager in random order against a plain model of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.model import Peer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


FULL = [10, 10]
"""Sizes of what fills an outbox for one message: one that blocks, and one behind it."""


def machine_on(loop: str) -> type[Machine]:
    return type("Machine", (Machine,), {"new_loop": staticmethod(LOOPS[loop])})


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("examples", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)  # a failure is made as small as can be
def test_a_manager_does_as_the_model_does(loop: str, examples: int) -> None:
    """
    Who is connected, in which rooms, what each peer got in which order, and every figure.

    A few examples are the same in every run; many are new ones each time.
    """
    run_state_machine_as_test(
        machine_on(loop),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=examples < 100,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Explaining a failure takes longer than to find it.
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
        ),
    )


# The same for what random steps come upon once in a long while only.


class Stage:
    """Plays steps of a machine, and compares after each of them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def connect(self, user: str | None = None, rooms: Iterable[str] = ()) -> Peer:
        return cast("Peer", self._machine.connect(user, list(rooms)))

    def play(self, step: str, *arguments: object) -> None:
        getattr(self._machine, step)(*arguments)
        self._machine.agrees()


@pytest.fixture(params=LOOPS)
def machine(request: pytest.FixtureRequest) -> Machine:
    return machine_on(request.param)()


@pytest.fixture(params=["disconnect", "drop_oldest", "drop_newest"])
def stage(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Stage]:
    machine.begin(request.param, 1)
    yield Stage(machine)
    machine.teardown()


def test_all_is_well(stage: Stage) -> None:
    """Rooms, users, exclusion, and peers that leave or are sent away."""
    ann, bob = stage.connect("ann", ["tea", "tea"]), stage.connect("bob", ["tea", "milk"])
    stage.play("say", ann)
    stage.play("send_nowait", ann, 10)
    for form in ("connection", "websocket", "id"):
        stage.play("broadcast", "tea", 10, ann, form)
    stage.play("send_to_user", "ann", 10)
    stage.play("leave", ann, "tea")
    stage.play("disconnect", ann)
    stage.play("join", ann, "milk")
    stage.play("end", ann, 4000, "return")
    stage.play("disconnect_user", "bob", 4000)
    stage.play("send", bob, 10)


def test_senders_wait_for_a_stalled_peer(stage: Stage) -> None:
    """They take their turns, or are cancelled, until it reads on."""
    peer = stage.connect("ann", ["tea"])
    stage.play("stall", peer, [*FULL, 10, 45, 10])
    stage.play("cancel_a_sender", 1)
    stage.play("cancel_a_sender", 0)
    stage.play("send_nowait", peer, 10)
    stage.play("read_on", peer)


def test_a_stalled_peer_overflows(stage: Stage) -> None:
    """It is evicted, or misses some, as the policy says, and takes its close frame in time."""
    peer = stage.connect()
    stage.play("stall_and_overflow", peer)
    stage.play("advance", 0.5)
    stage.play("take_one", peer)


def test_a_stalled_peer_runs_out_of_time(stage: Stage) -> None:
    """It is evicted with all that waits, senders too, and does not take the close frame."""
    peer = stage.connect()
    stage.play("stall", peer, [*FULL, 10])
    stage.play("advance", 11.0)
    stage.play("read_on", peer)


def test_a_sender_runs_out_of_time(stage: Stage) -> None:
    """A peer that takes one message now and then is evicted by the sender that waits too long."""
    peer = stage.connect()
    stage.play("stall", peer, [*FULL, 10, 10, 10])
    stage.play("advance", 3.0)
    stage.play("take_one", peer)
    stage.play("advance", 7.5)


@pytest.mark.parametrize("end", ["close", "return", "abort", "hang up"])
def test_a_stalled_peer_is_given_up(stage: Stage, end: str) -> None:
    """It takes neither what waits nor the close frame in time."""
    peer = stage.connect()
    stage.play("stall", peer, [*FULL, 10])
    stage.play("end", peer, 4000, end)
    stage.play("end", peer, 1000, end)
    stage.play("advance", 11.0)
    stage.play("take_one", peer)


def test_a_peer_breaks_down(stage: Stage) -> None:
    """The next message to it fails, and whatever comes after that raises."""
    peer = stage.connect()
    stage.play("break_down", peer)
    stage.play("send", peer, 10)
    stage.play("send_nowait", peer, 10)
    stage.play("join", peer, "milk")


def test_a_stalled_peer_breaks_down(stage: Stage) -> None:
    """What it blocks fails late, also when it is closing already."""
    blocked, closing = stage.connect(), stage.connect()
    for peer in (blocked, closing):
        stage.play("stall", peer, FULL)
    stage.play("end", closing, 4000, "close")
    for peer in (blocked, closing):
        stage.play("break_down", peer)
    stage.play("take_one", blocked)
    stage.play("read_on", closing)
