"""What all backends with a server have in common."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ("Options",)

PREFIX = "wshub"
PUBLISH_TIMEOUT = 2.0
MAX_PAYLOAD = 1024 * 1024

_PREFIX = re.compile("[A-Za-z0-9_-]{1,64}")


class Options(NamedTuple):
    """
    The options of every supervised backend.

    Attributes:
        prefix: Begins the name of every channel. Apps that share a server but not their messages
            need different ones.
        publish_timeout: Seconds that a publication waits for the server, at most.
        max_payload: Bytes of the longest message, with its envelope.
    """

    prefix: str = PREFIX
    publish_timeout: float = PUBLISH_TIMEOUT
    max_payload: int = MAX_PAYLOAD

    def check(self) -> None:
        """Raise ValueError if something cannot work."""
        # No separator of any broker may be in it: two tenants' channels would run together.
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(
                f"prefix must be 1 to 64 letters, digits, '_' and '-', not {self.prefix!r}"
            )
        if not self.publish_timeout > 0:
            raise ValueError(f"publish_timeout must be positive, not {self.publish_timeout!r}")
        if self.max_payload < 1:
            raise ValueError(f"max_payload must be at least 1 byte, not {self.max_payload}")
