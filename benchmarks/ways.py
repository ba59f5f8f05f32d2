"""Ways to send one message to many: what is measured beside wshub."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import NamedTuple

from benchmarks.floor import COMPILER
from benchmarks.floor import FLOOR as C_SERVER
from benchmarks.process import Rig
from wshub._ring import Ring

__all__ = (
    "FANOUT",
    "FLOOR",
    "LITESTAR",
    "RING",
    "SOCKETIO",
    "STOCK",
    "TUTORIAL",
    "WEBSOCKETS",
    "Way",
)


RING_SERVER = "ring_hub"


class Way(NamedTuple):
    """
    A server, and how clients use it.

    Attributes:
        label: Its name for people.
        server: A module of `benchmarks.servers`, or `floor`.
        path: What clients connect to.
        room: The room that is sent to; None for everyone.
        ws: uvicorn's implementation of WebSockets, where uvicorn serves.
        dialect: What clients speak, a name in `benchmarks.dialect`.
        requires: A module that must be installed.
    """

    label: str
    server: str
    path: str = "/ws"
    room: str | None = None
    ws: str = "websockets-sansio"
    dialect: str = "plain"
    requires: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is wshub."""
        return self.label.startswith("wshub")

    def start(
        self, *, loop: str = "asyncio", path: str | None = None, compressed: bool = False
    ) -> Rig:
        """Start the server and its load generator."""
        return Rig(
            self.server,
            ws=self.ws,
            loop=loop,
            path=path or self.path,
            dialect=self.dialect,
            compressed=compressed,
        )

    def obstacle(self) -> str | None:
        """Return why it cannot be measured here, or None."""
        if self.server == C_SERVER and shutil.which(COMPILER) is None:
            return f"there is no C compiler `{COMPILER}`"
        if self.requires is not None and find_spec(self.requires) is None:
            return f"`{self.requires}` is not installed"
        if self.server == RING_SERVER:
            try:
                Ring()
            except OSError as error:
                return f"there is no io_uring: {error.strerror}"
        return None


TUTORIAL = Way("the tutorial's loop", "tutorial")
FLOOR = Way("a C loop of send()", C_SERVER)
WEBSOCKETS = Way("websockets.broadcast()", "websockets")
LITESTAR = Way("Litestar channels", "litestar", requires="litestar")
SOCKETIO = Way(
    "python-socketio",
    "socketio",
    path="/socket.io/?EIO=4&transport=websocket",
    dialect="socketio",
    requires="socketio",
)
STOCK = Way("wshub, stock uvicorn", "hub")
FANOUT = Way(
    "wshub, FanoutProtocol", "hub", ws="wshub.uvicorn:FanoutProtocol", requires="wshub.uvicorn"
)
RING = FANOUT._replace(label=f"{FANOUT.label} with io_uring", server=RING_SERVER)
