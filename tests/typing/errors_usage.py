"""What an editor infers of errors, rejections and credentials. Checked, never executed."""

from collections.abc import Awaitable, Callable
from typing import Annotated, assert_type

from fastapi import Depends, FastAPI, WebSocket, WebSocketException
from fastapi.exceptions import WebSocketRequestValidationError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from wshub import (
    AlreadyConnected,
    BackendUnavailable,
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    ConnectionManager,
    HubError,
    InvalidName,
    InvalidRoomName,
    InvalidUserId,
    MessageNotEncodable,
    NotConnected,
    PayloadTooLarge,
    Rejection,
    exceptions,
)
from wshub.auth import CookieOrToken, build_cookie_or_token, get_cookie_or_token
from wshub.rejections import RejectionHandler

app = FastAPI()
manager = ConnectionManager()


async def fields(websocket: WebSocket) -> None:
    """Each error says in its fields what it is about."""
    try:
        await manager.send_personal_message("hello", websocket)
    except InvalidName as error:
        assert_type(error.kind, str)
        assert_type(error.problem, str)
        assert_type(error.code, int)
        assert_type(error.reason, str)
    except MessageNotEncodable as error:
        assert_type(error.type_name, str)
        assert_type(error.problem, str)
    except AlreadyConnected as error:
        assert_type(error.problem, str)
    except ConcurrentReceive as error:
        assert_type(error.connection_id, str)
    except BackendUnavailable as error:
        assert_type(error.backend, str)
        assert_type(error.problem, str)
    except PayloadTooLarge as error:
        assert_type(error.size, int)
        assert_type(error.limit, int)


# Code that was written for Starlette catches what it always caught.
disconnect: type[WebSocketDisconnect] = ConnectionClosed
refusals: tuple[type[WebSocketException], ...] = (InvalidRoomName, InvalidUserId, Rejection)
errors: tuple[type[HubError], ...] = (ConnectionClosed, InvalidName, NotConnected)


def close_codes() -> None:
    assert_type(CloseCode(1001), CloseCode)
    assert_type(CloseCode.GOING_AWAY.can_send, bool)
    assert_type(CloseCode.GOING_AWAY.should_reconnect, bool)
    code: int = CloseCode.GOING_AWAY
    assert_type(exceptions.check_close_code(code), int)
    assert_type(exceptions.cut_reason("bye"), str)


def rejections() -> None:
    assert_type(exceptions.unauthorized(), Rejection)
    assert_type(exceptions.forbidden("members only"), Rejection)
    assert_type(exceptions.try_again_later(retry_after=2.5), Rejection)
    rejection = Rejection(4001, "expired", status=410)
    assert_type(rejection.status, int | None)
    assert_type(rejection.retry_after, float | None)


# The handler fits wherever FastAPI and Starlette take one.
app.add_exception_handler(WebSocketException, RejectionHandler())
app.add_exception_handler(WebSocketRequestValidationError, RejectionHandler(answer="close"))
Starlette(exception_handlers={WebSocketException: RejectionHandler()})
RejectionHandler("maybe")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.websocket("/annotated")
async def annotated_style(websocket: WebSocket, cookie_or_token: CookieOrToken) -> None:
    assert_type(cookie_or_token, str)


@app.websocket("/default")
async def default_style(
    websocket: WebSocket, cookie_or_token: str = Depends(get_cookie_or_token)
) -> None:
    assert_type(cookie_or_token, str)


get_ticket = build_cookie_or_token(cookie="sid", query="ticket")
dependency: Callable[[HTTPConnection], Awaitable[str]] = get_ticket


@app.websocket("/named")
async def own_names(websocket: WebSocket, ticket: Annotated[str, Depends(get_ticket)]) -> None:
    assert_type(ticket, str)
