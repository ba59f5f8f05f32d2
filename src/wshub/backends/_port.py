"""The port of a server, as URLs have it."""

from __future__ import annotations

import re

__all__ = ("read_port",)

_HIGHEST = 65535


def read_port(text: str) -> int:
    """
    Return the port that is written there.

    Raises:
        ValueError: It is none. The text does not repeat it: where the host was forgotten, this is
            the password.
    """
    port = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    if not 0 < port <= _HIGHEST:
        raise ValueError(f"a port cannot be read; it is a number from 1 to {_HIGHEST}")
    return port
