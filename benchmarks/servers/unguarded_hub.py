"""wshub with `/private` behind a log-in alone."""

from __future__ import annotations

from benchmarks.servers.guarded_hub import Server as GuardedServer

__all__ = ("Server",)


class Server(GuardedServer):
    """The same as `guarded_hub`, without any limit."""

    limits_connections = False
