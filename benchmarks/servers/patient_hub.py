"""wshub when it is told to keep clients that do not read, and to drop messages for them."""

from __future__ import annotations

from benchmarks.servers import hub
from wshub import OutboxOptions

__all__ = ("Server",)


class Server(hub.Server):
    """A stalled client stays for the whole benchmark, with a full outbox."""

    def __init__(self) -> None:
        super().__init__(outbox=OutboxOptions(overflow="drop_oldest", send_timeout=3600))
