"""wshub when it may write to many clients with one system call."""

from __future__ import annotations

from benchmarks.servers import hub
from wshub import OutboxOptions

__all__ = ("Server",)


class Server(hub.Server):
    """Uses io_uring, which `FanoutProtocol` is needed for."""

    def __init__(self) -> None:
        super().__init__(outbox=OutboxOptions(io_uring=True))
