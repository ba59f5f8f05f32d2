"""The rules for room names and user ids: not empty, not too long, no control characters."""

from __future__ import annotations

import re

from wshub.exceptions import InvalidName, InvalidRoomName, InvalidUserId

__all__ = ("MAX_NAME_BYTES", "check_room_name", "check_user_id")

MAX_NAME_BYTES = 255
"""Longest name, in bytes of UTF-8."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_room_name(name: str) -> str:
    """
    Return `name` if it can name a room.

    Raises:
        TypeError: It is not a string.
        InvalidRoomName: It is empty, over 255 bytes, or has control characters in it.
    """
    return _check(name, InvalidRoomName)


def check_user_id(user: str) -> str:
    """
    Return `user` if it can identify a user.

    Raises:
        TypeError: It is not a string.
        InvalidUserId: It is empty, over 255 bytes, or has control characters in it.
    """
    return _check(user, InvalidUserId)


def _check(name: object, error: type[InvalidName]) -> str:
    if not isinstance(name, str):
        message = f"a {error.kind} is a string, not {type(name).__name__}; pass str(…)"
        raise TypeError(message)
    if not name:
        raise error("it is empty")
    if _CONTROL.search(name):
        raise error("it has control characters in it")
    if len(name) > MAX_NAME_BYTES or len(name.encode()) > MAX_NAME_BYTES:
        raise error(f"it is over {MAX_NAME_BYTES} bytes long")
    return name
