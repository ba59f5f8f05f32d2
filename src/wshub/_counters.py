"""What a manager counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from wshub.events import LimitName, SkipReason

if TYPE_CHECKING:
    from wshub.events import DropReason, EvictionReason

__all__ = ("Counters",)


class Counters:
    """Plain integers that the hot path adds to. One set a manager, used by one event loop."""

    __slots__ = (
        "dropped",
        "evicted",
        "limited",
        "opened",
        "published",
        "queued",
        "received",
        "sent",
        "skipped",
        "unread",
    )

    def __init__(self) -> None:
        self.opened: int = 0
        self.received: int = 0
        self.unread: int = 0
        self.published: int = 0
        self.queued: int = 0
        self.sent: int = 0
        self.dropped: dict[DropReason, int] = {"overflow": 0, "closed": 0}
        self.evicted: dict[EvictionReason, int] = {
            "overflow": 0,
            "send_timeout": 0,
            "write_failed": 0,
        }
        self.limited: dict[LimitName, int] = dict.fromkeys(get_args(LimitName), 0)
        self.skipped: dict[SkipReason, int] = dict.fromkeys(get_args(SkipReason), 0)
