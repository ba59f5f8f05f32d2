"""permessage-deflate (RFC 7692) that lets one compressed frame serve every recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

__all__ = ("make_extensions", "window_bits_of")

WINDOW_BITS = 12
"""As uvicorn has it: what a larger window saves on messages is little, its memory is not."""

LEAST_BITS = 9
"""Of windows that zlib can compress with."""


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
    bits = (
        extension.local_max_window_bits
        for extension in connection.extensions
        if isinstance(extension, PerMessageDeflate) and extension.local_no_context_takeover
    )
    agreed = next(bits, 0)
    # websockets before 17 agrees to 8, which zlib has not.
    return agreed if agreed >= LEAST_BITS else 0
