"""Refusals of one connection, and helpers that build them with the code that fits."""

from __future__ import annotations

import math
from http import HTTPStatus

from fastapi.exceptions import WebSocketException

from wshub._close_codes import CloseCode, check_close_code, cut_reason

__all__ = (
    "Rejection",
    "forbidden",
    "internal_error",
    "invalid_payload",
    "make_headers",
    "message_too_big",
    "policy_violation",
    "too_many_requests",
    "try_again_later",
    "unauthorized",
    "unsupported_data",
)

_STATUS: dict[int, HTTPStatus] = {
    CloseCode.UNSUPPORTED_DATA: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    CloseCode.INVALID_PAYLOAD: HTTPStatus.UNPROCESSABLE_ENTITY,
    CloseCode.POLICY_VIOLATION: HTTPStatus.FORBIDDEN,
    CloseCode.MESSAGE_TOO_BIG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    CloseCode.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    CloseCode.SERVICE_RESTART: HTTPStatus.SERVICE_UNAVAILABLE,
    CloseCode.TRY_AGAIN_LATER: HTTPStatus.SERVICE_UNAVAILABLE,
    CloseCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    CloseCode.FORBIDDEN: HTTPStatus.FORBIDDEN,
}


class Rejection(WebSocketException):
    """
    Refuses or ends one connection: raise it in a dependency or a handler.

    Args:
        code: Close code that a close frame may carry.
        reason: For the peer to read; cut to 123 bytes of UTF-8.
        status: HTTP status when the handshake is refused over HTTP; by default derived from
            the code.
        retry_after: Seconds after which the peer may try again, or None.

    Raises:
        ValueError: The code cannot be sent (RFC 6455 §7.4.1).
    """

    def __init__(
        self,
        code: int,
        reason: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(check_close_code(code), cut_reason(reason))
        self.status = status
        self.retry_after = retry_after

    @property
    def http_status(self) -> int:
        """The status that an HTTP answer has; 403 where the code says nothing better."""
        return self.status or _STATUS.get(self.code, HTTPStatus.FORBIDDEN)


def make_headers(rejection: Rejection, status: int) -> dict[str, str]:
    """Return the headers that an HTTP answer with `status` has to have."""
    headers: dict[str, str] = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §11.6.1 asks for a challenge
    if rejection.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(rejection.retry_after))
    return headers


def unsupported_data(reason: str = "unsupported data") -> Rejection:
    """Build a rejection with 1003: the peer sent text where binary is due, or the reverse."""
    return Rejection(CloseCode.UNSUPPORTED_DATA, reason)


def invalid_payload(reason: str = "invalid payload") -> Rejection:
    """Build a rejection with 1007: the message is not what its type promises, as broken JSON."""
    return Rejection(CloseCode.INVALID_PAYLOAD, reason)


def policy_violation(reason: str = "policy violation") -> Rejection:
    """Build a rejection with 1008: no better code fits. HTTP 403 before accept."""
    return Rejection(CloseCode.POLICY_VIOLATION, reason)


def message_too_big(reason: str = "message too big") -> Rejection:
    """Build a rejection with 1009: the message is larger than this endpoint takes."""
    return Rejection(CloseCode.MESSAGE_TOO_BIG, reason)


def internal_error(reason: str = "internal error") -> Rejection:
    """Build a rejection with 1011: the server cannot go on. HTTP 500 before accept."""
    return Rejection(CloseCode.INTERNAL_ERROR, reason)


def try_again_later(
    reason: str = "try again later", *, retry_after: float | None = 5.0
) -> Rejection:
    """Build a rejection with 1013: the server is busy. HTTP 503 before accept, with Retry-After."""
    return Rejection(CloseCode.TRY_AGAIN_LATER, reason, retry_after=retry_after)


def too_many_requests(
    reason: str = "too many requests", *, retry_after: float | None = 5.0
) -> Rejection:
    """Build a rejection with 1013 of one busy client. HTTP 429 before accept, with Retry-After."""
    return Rejection(CloseCode.TRY_AGAIN_LATER, reason, status=429, retry_after=retry_after)


def unauthorized(reason: str = "unauthorized") -> Rejection:
    """Build a rejection with 3000: no valid credential. HTTP 401 before accept."""
    return Rejection(CloseCode.UNAUTHORIZED, reason)


def forbidden(reason: str = "forbidden") -> Rejection:
    """Build a rejection with 3003: known, but not allowed. HTTP 403 before accept."""
    return Rejection(CloseCode.FORBIDDEN, reason)
