"""What is collected for one or many peers in a turn of the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wshub._frames import FrameForm
    from wshub.messages import Outgoing

__all__ = ("Batch", "make_empty_batch")

MAX_MESSAGES = 64
MAX_BYTES = 64 * 1024
"""Most that one write takes together. A larger message goes alone."""


class Batch:
    """
    Messages that leave together. Immutable: `followed_by()` gives another one.

    All who are to get the same share one batch, so it is extended, checked against the bounds and
    joined once, whatever the number of recipients.

    Attributes:
        messages: The messages, in order.
        count: How many.
        size: Bytes of payload.
    """

    __slots__ = (
        "_following",
        "_frames",
        "_max_bytes",
        "_max_messages",
        "count",
        "messages",
        "size",
    )

    def __init__(
        self, messages: tuple[Outgoing, ...], size: int, *, max_messages: int, max_bytes: int
    ) -> None:
        self.messages: tuple[Outgoing, ...] = messages
        self.count: int = len(messages)
        self.size: int = size
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._following: Batch | None = None
        self._frames: dict[FrameForm, bytes] = {}

    def followed_by(self, message: Outgoing) -> Batch | None:
        """Return this batch with `message` behind it; None if it is too much for one write."""
        following = self._following
        if following is not None and following.messages[-1] is message:
            return following
        size = self.size + message.size
        if self.count and (self.count >= self._max_messages or size > self._max_bytes):
            return None
        following = self._following = Batch(
            (*self.messages, message),
            size,
            max_messages=self._max_messages,
            max_bytes=self._max_bytes,
        )
        return following

    def frames(self, form: FrameForm) -> bytes:
        """Return the frames of all messages, in a row."""
        frames = self._frames.get(form)
        if frames is None:
            parts = [message.frame(form) for message in self.messages]
            frames = self._frames[form] = parts[0] if len(parts) == 1 else b"".join(parts)
        return frames

    def forget(self) -> None:
        """Let go of what followed: the turn is over."""
        self._following = None


def make_empty_batch(max_messages: int, max_bytes: int) -> Batch:
    """Return the batch that others begin with, within the bounds of an outbox."""
    return Batch(
        (),
        0,
        max_messages=min(max_messages, MAX_MESSAGES),
        max_bytes=min(max_bytes, MAX_BYTES),
    )
