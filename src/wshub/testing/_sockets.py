"""Sockets that end badly."""

from __future__ import annotations

import os
import socket
import struct

__all__ = ("reset_when_closed",)

LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""To linger for zero seconds is to reset the connection instead of ending it in order."""


def reset_when_closed(descriptor: int) -> None:
    """Let the TCP connection of an open socket end with a reset, whoever closes it."""
    with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
