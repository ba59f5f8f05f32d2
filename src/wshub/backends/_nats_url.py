"""From the URL of NATS to what nats-py connects with."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from wshub.backends._port import read_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Settings", "read_url")

_URL = re.compile(
    r"(?P<scheme>nats|nats\+tls)://((?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)/?"
    r"(\?(?P<query>[^#]*))?",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+)(:(?P<port>\d+))?")
_FORMS = "nats://user:password@host:4222,host:4222, nats://token@host or, with TLS, nats+tls://…"

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_NAMES = {
    *("inbox_prefix", "name", "nkeys_seed", "nkeys_seed_str", "password", "signature_cb", "tls"),
    *("tls_handshake_first", "tls_hostname", "token", "user", "user_credentials", "user_jwt_cb"),
}
"""Options of nats-py's `connect()` that are the user's; the others are ours to choose."""


class Settings(NamedTuple):
    """
    How to connect.

    Attributes:
        servers: URLs of servers, with nothing secret in them.
        options: Arguments of nats-py's `connect()`.
        encrypted: Whether a server without TLS will not do.
        credentials: Name of the file with the user's credentials, if there is one.
        ordered: Whether the URL asks for one order for all workers; None: it does not say.
    """

    servers: Sequence[str]
    options: Mapping[str, Any]
    encrypted: bool
    credentials: str | None
    ordered: bool | None

    def __repr__(self) -> str:
        return f"<Settings of {', '.join(self.servers)}>"  # and no password


def read_url(url: str, options: Mapping[str, object]) -> Settings:
    """
    Return what `url` and `options` say.

    Raises:
        ValueError: They cannot be read. The text does not repeat them: there are passwords in it.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"this is no URL of NATS; use {_FORMS}")
    servers: list[str] = []
    for text in found["hosts"].split(","):
        address = _HOST.fullmatch(text or "localhost")
        if address is None:
            raise ValueError(f"a host and port of this URL cannot be read; use {_FORMS}")
        servers.append(f"nats://{address['host']}:{read_port(address['port'] or '4222')}")
    asked: dict[str, Any] = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    for name in ("ordered", "tls_handshake_first"):
        if name in asked:
            asked[name] = _read_switch(name, asked[name])
    ordered: bool | None = asked.pop("ordered", None)
    asked |= _read_user(found["user"]) | dict(options)
    files = {name: asked.pop(name) for name in _FILES if name in asked}
    unknown = sorted(asked.keys() - _NAMES)
    if unknown:
        raise ValueError(f"NatsBackend does not know the option {unknown[0]!r}")
    if _SUBJECT.fullmatch(str(asked.get("inbox_prefix", "_INBOX"))) is None:
        raise ValueError("inbox_prefix is a subject, without spaces and wildcards")
    asked.setdefault("name", "wshub")
    encrypted = (
        found["scheme"].lower() != "nats"
        or bool(files)
        or any(name.startswith("tls") for name in asked)
    )
    if encrypted and "tls" not in asked:
        asked["tls"] = _make_context(files)
    credentials = asked.get("user_credentials")
    return Settings(servers, asked, encrypted, credentials, ordered)


def _read_user(user: str | None) -> dict[str, str]:
    if user is None:
        return {}
    name, colon, password = user.partition(":")
    if not colon:
        return {"token": unquote(name)}
    return {"user": unquote(name), "password": unquote(password)}


def _read_switch(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"{name} is true or false, not {value!r}")
    return value == "true"


def _make_context(files: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
        if "ssl_certfile" in files:
            context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    except OSError as error:
        raise ValueError(f"a certificate or its key cannot be read: {error}") from error
    return context
