"""uvicorn, without its grip on the signals of the process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("Server",)


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the test runner."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield
