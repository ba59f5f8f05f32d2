"""The backend that connects workers through NATS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._driver import needing
from wshub.backends._nats_broker import NatsBroker
from wshub.backends._nats_stream import NatsStream
from wshub.backends._nats_url import read_url
from wshub.backends._options import MAX_PAYLOAD, PREFIX, PUBLISH_TIMEOUT, Options
from wshub.backends._supervisor import SupervisedBackend

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("NatsBackend",)


class NatsBackend(SupervisedBackend):
    """
    Carries messages between workers through NATS 2.10 or newer.

    At most once: what is published while a worker has lost the server does not reach its
    connections, and `BackendRegained` tells for how long that was. All workers see all messages
    in one order if they are `ordered`; else in the order in which each worker published, while
    two workers may see those of two others differently. Needs `pip install 'wshub[nats]'`.

    Args:
        url: `nats://user:password@host:4222`, with a token `nats://token@host`, with TLS
            `nats+tls://…`. Of several hosts, separated by commas, the first that answers is used.
        prefix: Begins the name of every subject: letters, digits, `_` and `-`. Apps that share a
            server, but not their messages, need different ones.
        ordered: Publish through a JetStream stream, `<prefix>-order`, which is made if it is not
            there; it stores nothing for longer than a second. Needs a server with JetStream, and
            the right to `$JS.API.STREAM.INFO` and `CREATE`. All workers should do the same. The
            URL may end in `?ordered=false`, too.
        publish_timeout: Seconds that a publication waits at most for a server that is away.
        max_payload: Bytes of the longest message, with its envelope; if the server takes less,
            its own limit holds.
        options: `user_credentials`, `nkeys_seed` or `nkeys_seed_str`, `inbox_prefix`, `name`,
            `tls`, `tls_hostname`, `tls_handshake_first`, as nats-py's `connect()` takes them;
            `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` are names of files. They may be in
            the query of the URL, too.

    Raises:
        ValueError: The URL or an option cannot be read.
        ImportError: nats-py is missing.
    """

    def __init__(
        self,
        url: str = "nats://localhost:4222",
        *,
        prefix: str = PREFIX,
        ordered: bool | None = None,
        publish_timeout: float = PUBLISH_TIMEOUT,
        max_payload: int = MAX_PAYLOAD,
        options: Mapping[str, object] | None = None,
    ) -> None:
        with needing("NatsBackend", "nats"):
            from wshub.backends._nats_link import NatsLink  # noqa: PLC0415  (an extra)

        settings = read_url(url, options or {})
        asked = settings.ordered if ordered is None else ordered
        stream = None if asked is False else NatsStream(prefix)
        self._nats = NatsBroker(settings, lambda: NatsLink(encrypted=settings.encrypted), stream)
        super().__init__(self._nats, Options(prefix, publish_timeout, max_payload))

    def _longest(self) -> int:
        return min(super()._longest(), self._nats.max_payload)
