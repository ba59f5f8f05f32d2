"""Whether what is installed is what the protocol builds on."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from wshub.exceptions import UnsupportedServer

__all__ = ("check_uvicorn",)

LEAST_UVICORN = "0.52.1"

_OVERRIDDEN = (
    "connection_lost",
    "data_received",
    "eof_received",
    "handle_close",
    "handle_cont",
    "handle_parser_exception",
    "handle_ping",
    "keepalive_timeout",
    "pause_writing",
    "receive",
    "resume_writing",
    "send",
    "send_receive_event_to_app",
    "shutdown",
)


def check_uvicorn() -> None:
    """
    Check that uvicorn and websockets are there, and what the protocol builds on.

    Raises:
        ImportError: One of them is not installed.
        UnsupportedServer: uvicorn is too old, or no longer has what the protocol overrides.
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
        sansio = import_module("uvicorn.protocols.websockets.websockets_sansio_impl")
        for name in _OVERRIDDEN:
            getattr(sansio.WebSocketsSansIOProtocol, name)
    except (ImportError, AttributeError) as error:
        raise UnsupportedServer("uvicorn", found, f"a newer wshub ({error})") from error


def _parse(release: str) -> tuple[list[int], bool]:
    """Return the numbers that a version begins with, and whether it is none before its release."""
    numbers = re.split(r"[^\d.]", release)[0]
    is_released = re.search("a|b|rc|dev", release) is None
    return [int(part) for part in numbers.split(".") if part], is_released
