"""NATS servers that are configured for a test, and run together."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.brokers.kinds import NATS

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.brokers.nats_server import NatsServer

needs_nats = pytest.mark.skipif(NATS.missing is not None, reason=str(NATS.missing))

PLAIN = 'listen: "127.0.0.1:{port}"\n'
JETSTREAM = PLAIN + 'jetstream {{ store_dir: "{directory}" }}\n'


@contextmanager
def running(*servers: NatsServer) -> Generator[None, None, None]:
    """Run servers for the length of a block."""
    with ExitStack() as stack:
        for server in servers:
            server.launch()
            stack.callback(server.stop)
        for server in servers:
            server.answers()
        yield
