"""Close codes and reasons, and what a close frame may carry of them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("CloseCode", "check_close_code", "cut_reason")

MAX_REASON_BYTES = 123
"""A control frame carries 125 bytes, two of them the code (RFC 6455 §5.5)."""

REGISTERED_CODES = range(3000, 5000)
"""For libraries and frameworks (3000-3999) and for applications (4000-4999)."""


class CloseCode(IntEnum):
    """
    Close codes of RFC 6455 §7.4.1 and the IANA WebSocket Close Code Number Registry.

    `can_send` and `should_reconnect` say how a code is meant to be used.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    UNAUTHORIZED = 3000
    FORBIDDEN = 3003
    TIMEOUT = 3008

    @property
    def can_send(self) -> bool:
        """Whether a close frame may carry this code; the others are only reported locally."""
        return self not in _LOCAL_CODES

    @property
    def should_reconnect(self) -> bool:
        """Whether a client that sees this code should connect again, after a delay."""
        return self in _RECONNECT_CODES


_CODES = frozenset(map(int, CloseCode))
_LOCAL_CODES = frozenset(
    {CloseCode.NO_STATUS_RECEIVED, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
)
_RECONNECT_CODES = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.NO_STATUS_RECEIVED,
        CloseCode.ABNORMAL_CLOSURE,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.BAD_GATEWAY,
        CloseCode.TIMEOUT,
    }
)


def check_close_code(code: int) -> int:
    """
    Return `code` as an int if a close frame may carry it (RFC 6455 §7.4).

    Raises:
        ValueError: The code is reserved, unassigned or out of range.
    """
    if code in REGISTERED_CODES or (code in _CODES and CloseCode(code).can_send):
        return int(code)
    raise ValueError(
        f"{code} cannot be sent in a close frame; "
        "use 1000-1003, 1007-1014, or 3000-4999 (4000-4999 are yours)"
    )


def cut_reason(reason: str) -> str:
    """Return `reason` cut to 123 bytes of UTF-8 on a character boundary (RFC 6455 §5.5)."""
    encoded = reason.encode("utf-8", errors="replace")
    return encoded[:MAX_REASON_BYTES].decode("utf-8", errors="ignore")
