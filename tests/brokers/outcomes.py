"""What comes of starting backends: they work, or refuse."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from wshub import BackendRefused
from wshub.backends import _supervisor
from wshub.testing._worker import Worker
from wshub.testing.deadline import DEADLINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wshub.backends import Backend


async def works(backend: Backend) -> None:
    """Check that what is published comes back."""
    async with Worker(backend).running() as worker:
        assert backend.health().ready, backend.health().problem
        await worker.publish("hi")
        await worker.reached_by("hi")


async def refuses(backend: Backend, problem: str) -> None:
    """Check that a backend does not start, and why, by a regular expression."""
    assert re.search(problem, await refusal(backend))


async def refusal(backend: Backend) -> str:
    """Return why a backend does not start; `s3cret` is the password, if there is one."""
    # On a busy machine no answer in time would be an outage, which is no refusal.
    with (
        mock.patch.object(_supervisor, "PATIENCE", DEADLINE),
        pytest.raises(BackendRefused) as refused,
    ):
        async with Worker(backend).running():
            pytest.fail("it started")  # pragma: no cover (it must not)
    assert not backend.health().ready
    assert "s3cret" not in f"{refused.value} {backend!r}"
    return refused.value.problem


@asynccontextmanager
async def working(*backends: Backend) -> AsyncGenerator[list[Worker], None]:
    """Start backends, all at once, and stop them at the end of the block."""
    workers = [Worker(backend) for backend in backends]
    async with AsyncExitStack() as stack:
        for worker in workers:
            stack.push_async_callback(worker.backend.stop)
        await asyncio.gather(*(worker.backend.start() for worker in workers))
        yield workers
