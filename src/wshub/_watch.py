"""What is kept an eye on while a peer is connected: life, idleness, and the rate it sends at."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wshub._token_bucket import TokenBucket
from wshub.exceptions import CloseCode
from wshub.messages import Outgoing, encode, size_of

if TYPE_CHECKING:
    from wshub._clock import Clock, Timer
    from wshub._outbox import Outbox
    from wshub.events import LimitAction, LimitName
    from wshub.limits import Limits

__all__ = ("Heartbeat", "Watch", "WatchOptions")

logger = logging.getLogger("wshub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """
    A message that every client gets now and then, for those that cannot see protocol pings.

    Scripts in browsers can tell by it that a connection is dead, and proxies that it is not
    idle. It is left out while other messages wait for the peer.

    Attributes:
        interval: Seconds between two of them. The first comes at a random time within it, so
            that clients that connected together do not stay in step.
        message: What is sent; encoded like any message.
        reply: What a client may answer, or None. An answer keeps the connection from being idle
            and does not reach the handler. One that is no str or bytes is compared as compact
            JSON, which is what `JSON.stringify()` makes.

    Raises:
        ValueError: `interval` is not positive.
        MessageNotEncodable: `message` or `reply` is nothing that can be sent.
    """

    interval: float = 25.0
    message: object = "ping"
    reply: object = "pong"

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise ValueError(f"interval must be positive, not {self.interval!r}")
        encode(self.message)
        encode(self.reply)


class WatchOptions:
    """
    What to watch, made ready once a manager.

    Raises:
        ValueError: `idle_timeout` is not positive, or leaves no time to answer a heartbeat.
    """

    __slots__ = ("beat", "idle_timeout", "interval", "limits", "reply")

    def __init__(
        self, limits: Limits, heartbeat: Heartbeat | None, idle_timeout: float | None
    ) -> None:
        least = heartbeat.interval if heartbeat and heartbeat.reply is not None else 0
        if idle_timeout is not None and not idle_timeout > least:
            raise ValueError(
                f"idle_timeout must be positive, and longer than the interval of heartbeats that "
                f"are answered, not {idle_timeout!r}"
            )
        self.limits: Limits = limits
        self.idle_timeout: float | None = idle_timeout
        self.interval: float = heartbeat.interval if heartbeat else 0
        self.beat: Outgoing | None = encode(heartbeat.message) if heartbeat else None
        self.reply: str | bytes | None = None
        if heartbeat and heartbeat.reply is not None:
            self.reply = encode(heartbeat.reply).data

    def __bool__(self) -> bool:
        """Whether there is anything to watch."""
        limits = self.limits
        return (
            self.beat is not None
            or self.idle_timeout is not None
            or limits.message_bytes is not None
            or limits.messages_per_second is not None
            or limits.bytes_per_second is not None
        )


class _Watched(Protocol):
    """What a watch needs of the link."""

    outbox: Outbox

    @property
    def is_behind(self) -> bool:
        """Whether reading has stopped because the handler does not keep up."""
        ...

    def start_closing(self, code: int, reason: str) -> object:
        """Close it without waiting."""
        ...

    def report_limit(self, limit: LimitName, action: LimitAction) -> None:
        """Count, log and tell hooks that its peer reached a limit."""
        ...


class Watch:
    """Watches one peer from its start to `stop()`."""

    __slots__ = ("_beats", "_bytes", "_clock", "_heard", "_idle", "_link", "_messages", "_options")

    def __init__(self, link: _Watched, options: WatchOptions, clock: Clock) -> None:
        self._link = link
        self._options = options
        self._clock = clock
        self._heard = now = clock.time()
        limits = options.limits
        self._messages = _bucket(limits.messages_per_second, limits.burst, now)
        self._bytes = _bucket(limits.bytes_per_second, limits.burst, now)
        self._idle: Timer | None = None
        self._beats: Timer | None = None
        if options.idle_timeout is not None:
            self._idle = clock.call_later(options.idle_timeout, self._check_idle)
        if options.beat is not None:
            # No secret: it spreads the load.
            first = random.uniform(0, options.interval)  # noqa: S311
            self._beats = clock.call_later(first, self._send_beat)

    def notice(self, message: str | bytes) -> bool:
        """Take note of a message that came in; return whether the handler is to see it."""
        self._heard = now = self._clock.time()
        maximum = self._options.limits.message_bytes
        size = 0 if maximum is None and self._bytes is None else size_of(message)
        if maximum is not None and size > maximum:
            self._close("message_bytes", CloseCode.MESSAGE_TOO_BIG, "message too big")
        elif self._charge("messages_per_second", self._messages, 1, now):
            self._charge("bytes_per_second", self._bytes, size, now)
        return message != self._options.reply

    def hear(self) -> None:
        """Take note that the peer may have sent something that was not read until now."""
        self._heard = self._clock.time()

    def stop(self) -> None:
        """Stop watching."""
        for timer in (self._idle, self._beats):
            if timer is not None:
                timer.cancel()

    def _charge(
        self, limit: LimitName, bucket: TokenBucket | None, tokens: int, now: float
    ) -> bool:
        """Take `tokens` out of `bucket`; return False if that closed the connection."""
        verdict = "fine" if bucket is None else bucket.take(tokens, now)
        if verdict == "close":
            self._close(limit, CloseCode.POLICY_VIOLATION, "too many messages")
            return False
        if verdict == "warn":
            self._link.report_limit(limit, "warned")
        return True

    def _close(self, limit: LimitName, code: int, reason: str) -> None:
        self._link.report_limit(limit, "closed")
        self._link.start_closing(code, reason)

    def _send_beat(self) -> None:
        assert self._options.beat is not None  # noqa: S101  (there is no timer without it)
        self._beats = self._clock.call_later(self._options.interval, self._send_beat)
        if not self._link.outbox.messages:
            self._link.outbox.put(self._options.beat)

    def _check_idle(self) -> None:
        timeout = self._options.idle_timeout
        assert timeout is not None  # noqa: S101  (there is no timer without it)
        if self._link.is_behind:
            self.hear()  # what it sent may wait behind what nobody reads
        left = self._heard + timeout - self._clock.time()
        if left > 0:
            self._idle = self._clock.call_later(left, self._check_idle)
        else:
            self._link.start_closing(CloseCode.TIMEOUT, "idle")


def _bucket(rate: float | None, burst: float, now: float) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate, burst, now)
