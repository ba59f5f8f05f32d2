"""Whether what is installed is what the protocol builds on."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter

from wshub.exceptions import UnsupportedServer

__all__ = ("check_uvicorn",)

LEAST_UVICORN = "0.52.1"

_BUILT_ON = (
    "app",
    "close_sent",
    "config.ws_max_size",
    "config.ws_per_message_deflate",
    "conn.available_extensions",
    "conn.close_sent",
    "conn.data_to_send",
    "conn.extensions",
    "conn.send_close",
    "conn.state",
    "curr_msg_data_type",
    "disconnected",
    "frames",
    "handle_close",
    "handle_cont",
    "handle_parser_exception",
    "handle_ping",
    "keepalive_timeout",
    "queue",
    "read_paused",
    "receive",
    "schedule_ping",
    "send",
    "send_receive_event_to_app",
    "shutdown",
    "stop_keepalive",
    "transport",
    "writable",
)
"""What the protocol overrides, reads or sets of uvicorn's own, beside what asyncio calls."""


def check_uvicorn() -> None:
    """
    Check that uvicorn and websockets are there, and what the protocol builds on.

    Raises:
        ImportError: One of them is not installed.
        UnsupportedServer: uvicorn is too old, or no longer has what the protocol builds on.
    """
    try:
        found = version("uvicorn")
        version("websockets")
    except PackageNotFoundError as error:
        raise ImportError(
            f"wshub.uvicorn needs {error.name}; pip install 'wshub[uvicorn]'", name=error.name
        ) from error
    if _parse(found) < _parse(LEAST_UVICORN):
        raise UnsupportedServer("uvicorn", found, f"{LEAST_UVICORN} or newer")
    try:
        protocol = _make_protocol()
        for name in _BUILT_ON:
            attrgetter(name)(protocol)
    except (ImportError, AttributeError, TypeError) as error:
        raise UnsupportedServer("uvicorn", found, f"a newer wshub ({error})") from error


def _make_protocol() -> object:
    """Return uvicorn's own protocol as it is made for a connection: only that has all it sets."""
    uvicorn = import_module("uvicorn")
    sansio = import_module("uvicorn.protocols.websockets.websockets_sansio_impl")
    kind = sansio.WebSocketsSansIOProtocol
    # With classes no other protocols are imported, and without log_config loggers stay as they are.
    config = uvicorn.Config(_app, http=kind, ws=kind, log_config=None)
    config.load()
    with closing(asyncio.new_event_loop()) as loop:
        protocol: object = kind(config, uvicorn.Server(config).server_state, {}, loop)
    return protocol


async def _app(scope: object, receive: object, send: object) -> None:
    """Be what a configuration needs; nobody calls it."""


def _parse(release: str) -> tuple[list[int], bool]:
    """Return the numbers that a version begins with, and whether it is none before its release."""
    numbers = re.split(r"[^\d.]", release)[0]
    is_released = re.search("a|b|rc|dev", release) is None
    return [int(part) for part in numbers.split(".") if part], is_released
