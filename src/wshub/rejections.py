"""How a refused connection learns why."""

from __future__ import annotations

import logging
from http.client import responses
from typing import TYPE_CHECKING, Literal

from fastapi.exceptions import WebSocketRequestValidationError
from starlette.exceptions import WebSocketException
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketState

from wshub._hub import find_connection
from wshub._rejection import make_headers
from wshub.auth.sources import select_subprotocol
from wshub.exceptions import CloseCode, Rejection, check_close_code, cut_reason

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

__all__ = ("RejectionHandler",)

_logger = logging.getLogger("wshub")


class RejectionHandler:
    """
    Exception handler that tells a client why its WebSocket is refused.

    Register it for `WebSocketException`, and for FastAPI's `WebSocketRequestValidationError` if
    bad parameters are to be answered the same way:

        app.add_exception_handler(WebSocketException, RejectionHandler())

    A rejection after `accept()` closes with the exception's code, whichever answer is chosen,
    and a peer that has gone meanwhile is no error.

    Args:
        answer: What a client gets that is refused before `accept()`. `"http"`: an HTTP status
            (401, 403, 422, 429, 503 with Retry-After, …) and a JSON body, which tools and mobile
            clients read but browsers hide from scripts; where the server lacks the WebSocket
            Denial Response extension of ASGI, its plain 403. `"close"`: the handshake succeeds
            and a close frame with code and reason follows at once, which browsers show to
            scripts, at the price of a handshake for each refused client.
    """

    def __init__(self, answer: Literal["http", "close"] = "http") -> None:
        if answer not in {"http", "close"}:
            message = f"answer must be 'http' or 'close', not {answer!r}"
            raise ValueError(message)
        self.answer = answer

    async def __call__(self, websocket: WebSocket, error: Exception) -> None:
        """
        Answer `error` on `websocket`.

        Raises:
            Exception: `error` itself, if it is neither of the two that this handler is for.
        """
        rejection = _to_rejection(error)
        connection = find_connection(websocket)
        try:
            if connection is not None:
                await connection.close(rejection.code, rejection.reason)
            elif websocket.application_state is WebSocketState.CONNECTING:
                await self._refuse(websocket, rejection)
            elif _is_open(websocket):
                await websocket.close(rejection.code, rejection.reason)
        except Exception as problem:  # servers raise what they like for a dead peer
            _logger.info("the peer did not wait for its %s", rejection.code, exc_info=problem)

    async def _refuse(self, websocket: WebSocket, rejection: Rejection) -> None:
        code, reason = rejection.code, rejection.reason
        try:
            if self.answer == "close":
                # A browser that offered subprotocols drops a handshake that selects none of them.
                chosen = select_subprotocol(websocket, otherwise_any=True)
                await websocket.send({"type": "websocket.accept", "subprotocol": chosen})
            elif "websocket.http.response" in websocket.scope.get("extensions", {}):
                await websocket.send_denial_response(_to_response(rejection))
                return
        except RuntimeError:
            # The endpoint, a class, accepted it through an object of its own.
            _logger.debug("too late for %r", rejection)
        await websocket._send({"type": "websocket.close", "code": code, "reason": reason})


def _is_open(websocket: WebSocket) -> bool:
    connected = WebSocketState.CONNECTED
    return websocket.application_state is connected and websocket.client_state is connected


def _to_rejection(error: Exception) -> Rejection:
    if isinstance(error, Rejection):
        return error
    if isinstance(error, WebSocketRequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = cut_reason(f"{place}: {first['msg']}")
        return Rejection(CloseCode.POLICY_VIOLATION, reason, status=422)
    if isinstance(error, WebSocketException):
        try:
            return Rejection(check_close_code(error.code), str(error.reason))
        except ValueError:
            return Rejection(CloseCode.INTERNAL_ERROR, "internal error")
    raise error


def _to_response(rejection: Rejection) -> JSONResponse:
    status = rejection.http_status
    detail = rejection.reason or responses.get(status, "rejected")
    return JSONResponse(
        {"code": rejection.code, "detail": detail}, status, make_headers(rejection, status)
    )
