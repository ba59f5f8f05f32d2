"""
How messages fit into notifications, and names into identifiers.

A notification is text of at most 7,999 bytes. It begins with its form and its place among those
of one transaction, in which PostgreSQL would deliver two that are alike only once:

    t0:{"v":1,"audience":"everyone"}…    ASCII, as it is
    b1:eyJ2IjoxLCJhdWRpZW5jZSI6…         anything else, in base64
    s2:f27ba1e20a5e4b2a…                 the key of a row that holds it
"""

from __future__ import annotations

import binascii
import re
from hashlib import blake2b
from typing import NamedTuple

__all__ = (
    "Spilled",
    "quote_identifier",
    "read_notification",
    "shorten",
    "write_notification",
    "write_reference",
)

MAX_NOTIFICATION = 7999
MAX_IDENTIFIER = 63
"""Bytes that PostgreSQL takes, as it is built by default."""

_FORM = re.compile(rb"([tbs])\d+:")


class Spilled(NamedTuple):
    """
    Stands for a payload that is in a row.

    Attributes:
        key: Of the row; 16 bytes.
    """

    key: bytes


def shorten(name: str) -> str:
    """Return `name` if it can be an identifier as it is, else a digest behind its beginning."""
    # A digest is always one byte longer than what is left as it is: no name leads to both.
    if len(name) < MAX_IDENTIFIER and name.isascii():
        return name
    digest = blake2b(name.encode(), digest_size=16).hexdigest()
    head = name.encode("ascii", "replace").decode()[: MAX_IDENTIFIER - len(digest) - 1]
    return f"{head}:{digest}".rjust(MAX_IDENTIFIER, ":")


def quote_identifier(name: str) -> bytes:
    """Return an identifier as statements have it."""
    return b'"%b"' % name.replace('"', '""').encode()


def write_notification(number: int, payload: bytes) -> str | None:
    """Return the text of a notification, the `number`th of its transaction; None: too long."""
    if payload.isascii() and b"\0" not in payload:
        text = f"t{number}:{payload.decode()}"
        if len(text) <= MAX_NOTIFICATION:
            return text
    text = f"b{number}:{binascii.b2a_base64(payload, newline=False).decode()}"
    return text if len(text) <= MAX_NOTIFICATION else None


def write_reference(number: int, key: bytes) -> str:
    """Return the text of a notification that stands for a row."""
    return f"s{number}:{key.hex()}"


def read_notification(text: bytes) -> bytes | Spilled:
    """Return what was written into a notification; what is none of ours, as it is."""
    form = _FORM.match(text)
    if form is None:
        return text
    body = text[form.end() :]
    try:
        match form[1]:
            case b"t":
                return body
            case b"b":
                return binascii.a2b_base64(body, strict_mode=True)
            case _:
                key = binascii.unhexlify(body)
                return Spilled(key) if len(key) == 16 else text  # noqa: PLR2004  (of a UUID)
    except binascii.Error:
        return text
