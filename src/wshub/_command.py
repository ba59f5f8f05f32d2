"""What the command `wshub` can do."""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated, NoReturn

import typer

from wshub.backends import backend_from_url
from wshub.exceptions import HubError, InvalidName, MessageNotEncodable
from wshub.publisher import Publisher

__all__ = ("run",)

FAILED = 1
MISUSED = 2
"""Exit codes: it could not be published; what was typed makes no sense."""

application = typer.Typer(
    name="wshub",
    help="Reach the WebSocket connections of an app from outside.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@application.callback()
def _main() -> None:
    """Reach the WebSocket connections of an app from outside."""


@application.command()
def publish(
    message: Annotated[str, typer.Argument(help="JSON; - reads it from standard input.")],
    url: Annotated[
        str,
        typer.Option(
            envvar="WSHUB_URL",
            show_default=False,
            help="Backend of the app, as redis://localhost:6379/0. In the environment, a "
            "password in it is seen by fewer others.",
        ),
    ],
    room: Annotated[str | None, typer.Option(help="Room to publish to.")] = None,
    user: Annotated[str | None, typer.Option(help="User to send to.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of the app's backend.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Send it as it is, not JSON.")] = False,  # noqa: FBT002  (a switch)
) -> None:
    """Send a message to everyone, or to a room, or to a user."""
    if room is not None and user is not None:
        _fail(MISUSED, "--room and --user do not go together")
    if message == "-":
        message = _read_input()
    if not text:
        message = message.strip()
        _check_json(message)
    try:
        backend = backend_from_url(url, **({} if prefix is None else {"prefix": prefix}))
        with Publisher(backend).sync as publisher:
            if user is None:
                publisher.broadcast(message, room=room)
            else:
                publisher.send_to_user(user, message)
    except (ValueError, InvalidName, MessageNotEncodable) as error:
        _fail(MISUSED, error)
    except (HubError, ImportError) as error:
        _fail(FAILED, error)


def run() -> None:
    """Do what the arguments of this process say, and end it."""
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is said once
    application()


def _read_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        _fail(MISUSED, f"what was read is not UTF-8: {error}")


def _check_json(text: str) -> None:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        _fail(MISUSED, f"the message is not JSON: {error}; --text sends it as it is")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is none of its numbers")


def _fail(code: int, problem: object) -> NoReturn:
    typer.echo(f"wshub publish: {problem}", err=True)
    raise typer.Exit(code)
