"""Values that only whoever has a secret can read or write."""

from __future__ import annotations

import binascii
import hmac
from hashlib import shake_256

from wshub.auth.credential import InvalidCredential

__all__ = ("seal", "unseal")

MAC_BYTES = 32


def seal(secret: str, text: str) -> str:
    """
    Return `text`, encrypted and authenticated with `secret`.

    The secret is random, at least 32 bytes long, and seals one text in its life: so the text is
    masked with bytes that are derived from it and serve for nothing else.
    """
    data = text.encode()
    key, mask = _derive(secret, len(data))
    masked = _combine(data, mask)
    return (hmac.digest(key, masked, "sha256") + masked).hex()


def unseal(secret: str, sealed: str) -> str:
    """
    Return the text that was sealed.

    Raises:
        InvalidCredential: It was not sealed with `secret`, or by another version of wshub.
    """
    try:
        data = binascii.unhexlify(sealed)
    except ValueError:
        data = b""
    mac, masked = data[:MAC_BYTES], data[MAC_BYTES:]
    key, mask = _derive(secret, len(masked))
    if not hmac.compare_digest(mac, hmac.digest(key, masked, "sha256")):
        raise InvalidCredential("its store is corrupt, or of another version of wshub")
    return _combine(masked, mask).decode()


def _derive(secret: str, size: int) -> tuple[bytes, bytes]:
    """Return a key for the authentication code, and a mask of `size` bytes."""
    source = b"wshub sealed 1 " + secret.encode("utf-8", "surrogatepass")
    derived = shake_256(source).digest(MAC_BYTES + size)
    return derived[:MAC_BYTES], derived[MAC_BYTES:]


def _combine(data: bytes, mask: bytes) -> bytes:
    number = int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")
    return number.to_bytes(len(data), "big")
