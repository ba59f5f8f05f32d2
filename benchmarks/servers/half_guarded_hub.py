"""wshub with `/private` behind a log-in and a limit on handshakes."""

from __future__ import annotations

from benchmarks.servers.guarded_hub import Server as GuardedServer

__all__ = ("Server",)


class Server(GuardedServer):
    """The same as `guarded_hub`, but handshakes are limited, once they have been read."""

    limits_connections = False
    limits_handshakes = True
