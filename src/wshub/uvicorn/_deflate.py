"""permessage-deflate (RFC 7692) that lets one compressed frame serve every recipient."""

from __future__ import annotations

from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.server import ServerProtocol

__all__ = ("make_extensions", "window_bits_of")

WINDOW_BITS = 12
"""As uvicorn has it: what a larger window saves on messages is little, its memory is not."""


def make_extensions() -> list[ServerPerMessageDeflateFactory]:
    """
    Return what to offer to a client.

    Without context takeover no frame depends on those before it. A server may say so whether or
    not the client asks for it (RFC 7692 §7.1.1.1).
    """
    return [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
            compress_settings={"memLevel": 5},
        )
    ]


def window_bits_of(connection: ServerProtocol) -> int:
    """Return the window, in bits, that frames may be compressed with; 0: not at all."""
    for extension in connection.extensions:
        if isinstance(extension, PerMessageDeflate) and extension.local_no_context_takeover:
            return extension.local_max_window_bits
    return 0
