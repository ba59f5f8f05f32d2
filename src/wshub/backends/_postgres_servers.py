"""Where the PostgreSQL servers are, and what they object to."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from psycopg import AsyncConnection, Error
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn

from wshub.backends._broker import BrokerRefused
from wshub.backends._port import read_port
from wshub.backends._postgres_link import PostgresLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from psycopg.abc import ConnParam

    Connect = Callable[..., Awaitable[AsyncConnection]]

__all__ = ("PostgresServers",)

_URL = re.compile(r"(?P<scheme>postgres(ql)?)(\+[a-z0-9_]+)?://(?P<rest>.*)", re.DOTALL)
_FORM = "postgresql://user:password@host:5432/database"
_TELLABLE = re.compile("invalid (connection option|URI query parameter)")
"""What libpq says with a name in it. Its other complaints repeat what may be the password."""

_NOWHERE = "/there is no such socket"

_DEFAULTS = {
    "fallback_application_name": "wshub",
    "target_session_attrs": "read-write",  # of several hosts it is the primary that we need
}

_REFUSALS = (
    (
        "authentication failed|no password supplied|role .* does not exist|not permitted to log in",
        "it refuses the user or the password",
    ),
    (
        "database .* does not exist|permission denied for database",
        "it refuses the database; create it, or name another one",
    ),
    (r"pg_hba\.conf", "it refuses this user, database or address; see its pg_hba.conf"),
    (
        "certificate verify failed|certificate file|does not match host name",
        "its certificate is not trusted; see sslmode and sslrootcert",
    ),
    (
        "invalid .*value|bad value for|invalid command-line argument|could not (match|parse)",
        "it refuses a parameter",
    ),
    ("server does not support SSL", "it does not speak TLS; see sslmode"),
    (
        "received invalid response|expected authentication request",
        "what answers there is not PostgreSQL",
    ),
)
"""libpq does not hand on SQLSTATEs of a login. In other languages than English it is an outage."""


class PostgresServers:
    """
    One server, or several of which one is the primary.

    Args:
        url: As `PostgresBackend` takes it.
        options: More of libpq's parameters.

    Raises:
        ValueError: They cannot be read. The text does not repeat them: there is a password.
    """

    def __init__(self, url: str, options: Mapping[str, str | int]) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise ValueError(f"this is no URL of PostgreSQL; use {_FORM}")
        authority, _, path = found["rest"].partition("?")[0].partition("/")
        if authority.count("@") > 1 or "@" in path:
            # A part of the password would be taken for a host, and told to everyone.
            raise ValueError(f"write @ as %40 and / as %2F in the user and password of {_FORM}")
        try:
            parameters = conninfo_to_dict(f"{found['scheme']}://{found['rest']}", **options)
            make_conninfo("", **parameters)
        except Error as error:
            problem = str(error).strip()
            if not _TELLABLE.match(problem):
                problem = "libpq cannot read it; in user and password write % as %25, [ as %5B"
            raise ValueError(f"this is no URL of PostgreSQL: {problem}; use {_FORM}") from None
        _check(parameters)
        self._parameters: dict[str, ConnParam] = {**_DEFAULTS, **parameters}
        self._turn = 0

    async def connect(self, connect: Connect = AsyncConnection.connect) -> PostgresLink:
        """
        Connect to the first server that takes us.

        Args:
            connect: Does it, as psycopg's classmethod.

        Raises:
            BrokerRefused: It objects to a password, a name, a certificate.
            ConnectionError: It is away.
        """
        _check_event_loop(asyncio.get_running_loop())
        try:
            connection = await connect(self._rotate(), autocommit=True)
        except Error as error:
            problem = _summarize(error)
            for pattern, refusal in _REFUSALS:
                if re.search(pattern, problem):
                    raise BrokerRefused(f"{refusal} ({problem})") from error
            raise ConnectionError(problem) from error
        link = PostgresLink(connection)
        try:
            await link.ask(b"SET idle_session_timeout = 0")
        except BaseException:
            link.close()
            raise
        return link

    def turn(self) -> None:
        """Begin with the next server from now on: the first may be silent, and others well."""
        self._turn += 1

    def _rotate(self) -> str:
        """Return the parameters, beginning with the server whose turn it is."""
        rotated = dict(self._parameters)
        for name in ("host", "hostaddr", "port"):
            values = str(rotated.get(name, "")).split(",")
            if len(values) > 1:
                cut = self._turn % len(values)
                rotated[name] = ",".join(values[cut:] + values[:cut])
        return make_conninfo("", **rotated)


def _check(parameters: Mapping[str, ConnParam]) -> None:
    """Raise ValueError for what libpq does not object to before it connects."""
    for port in str(parameters.get("port", "")).split(","):
        if port.strip():
            read_port(port.strip())
    # So it connects: to nowhere, as often as there are hosts.
    hosts = str(parameters.get("hostaddr") or parameters.get("host", "")).split(",")
    nowhere = {**parameters, "hostaddr": "", "host": ",".join([_NOWHERE] * len(hosts))}
    connection = PGconn.connect_start(make_conninfo("", **nowhere).encode())
    problem = connection.error_message.decode(errors="replace")
    connection.finish()
    if _NOWHERE not in problem:
        raise ValueError(f"PostgreSQL cannot be reached like this: {' '.join(problem.split())}")


def _summarize(error: Error) -> str:
    """Return what libpq says in one line, and of several servers what the last one did."""
    text = str(error).partition("\nMultiple connection attempts failed")[0]
    return " ".join(text.removeprefix("connection failed: ").split())


def _check_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    if isinstance(loop, getattr(asyncio, "ProactorEventLoop", ())):
        raise BrokerRefused(
            "psycopg does not work on Windows' ProactorEventLoop; choose "
            "asyncio.SelectorEventLoop, as `uvicorn --loop asyncio:SelectorEventLoop` does"
        )
