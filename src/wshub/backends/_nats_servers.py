"""Where the NATS servers are, and what they object to."""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wshub.backends._broker import BrokerRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from wshub.backends._nats_url import Settings

__all__ = ("NatsServers", "explain_refusals")

LOGIN = ("authorization violation", "authentication expired", "authentication revoked")
MARKS = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
"""What a file of credentials must have in it: nats-py looks for it for ever."""


class NatsServers:
    """
    One server, or several of which any will do.

    Args:
        settings: Where they are, and how to connect.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._servers = deque(settings.servers)

    async def connect(
        self, attempt: Callable[[str], Awaitable[None]], drop: Callable[[], Awaitable[None]]
    ) -> None:
        """
        Connect to the first server that does not fail at once.

        One that says nothing is tried for as long as the caller has the patience for, and another
        one the next time: what is shared out among many would be too little for any.

        Args:
            attempt: Connects to the server that it is told.
            drop: Takes a failed attempt back, if there is another server to try.

        Raises:
            BrokerRefused: It objects to a password, a certificate, a subject.
            Exception: Whatever the attempt at the last one raised.
        """
        if self._settings.credentials is not None:
            _check_credentials(self._settings.credentials)
        left = len(self._servers)
        with explain_refusals():
            while True:
                left -= 1
                try:
                    return await attempt(self._servers[0])
                except BaseException as error:  # another one may be better off
                    self._servers.rotate(-1)
                    if not left or not isinstance(error, Exception):
                        raise
                await drop()


def _check_credentials(path: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BrokerRefused(f"the credentials cannot be read: {error}") from error
    if not all(mark in content for mark in MARKS):
        raise BrokerRefused(f"{path} is no file of NATS credentials")


@contextmanager
def explain_refusals() -> Generator[None, None, None]:
    """Raise BrokerRefused for what is no outage: the configuration is wrong."""
    try:
        yield
    except Exception as error:
        problem = _problem_of(error)
        if problem is not None:
            raise BrokerRefused(problem) from error
        raise


def _problem_of(error: Exception) -> str | None:
    """Say what is wrong with the configuration; None: nothing, it is an outage."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).lower()
        if any(words in text for words in LOGIN):
            return f"it refuses the user, the password or what else proves who we are ({cause})"
        if "permissions violation" in text:
            return f"the user may not use a subject ({cause})"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted; see ssl_ca_certs ({cause})"
        if isinstance(cause, FileNotFoundError):
            return f"a file is missing: {cause}"
        if type(cause).__module__.startswith("nkeys"):
            return "the seed of the nkey cannot be read"
        cause = cause.__cause__ or cause.__context__
    return None
