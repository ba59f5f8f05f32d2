"""Clients that send anything: nothing escapes, everybody else is served, nothing is left."""

from __future__ import annotations

import gc

import pytest

from tests.uvicorn.attacks import LOOPS, fuzz
from wshub.uvicorn import FanoutProtocol


def living() -> int:
    """Return how many protocols there are."""
    gc.collect()
    return sum(isinstance(each, FanoutProtocol) for each in gc.get_objects())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.timeout(300)
def test_clients_may_send_anything(loop: str) -> None:
    """No exception reaches the loop or the log, and a bystander is served after each of them."""
    before = living()
    fuzz(loop, 400, 1)
    assert living() == before
