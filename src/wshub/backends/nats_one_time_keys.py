"""Keys that are worth something once, for all workers, in NATS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wshub.backends._driver import needing
from wshub.backends._nats_url import read_url
from wshub.backends._options import PREFIX
from wshub.backends._stored_one_time_keys import TIMEOUT, StoredOneTimeKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("NatsOneTimeKeys",)


class NatsOneTimeKeys(StoredOneTimeKeys):
    """
    Keeps one-time keys in JetStream of NATS 2.10 or newer, for `Tickets` of all workers.

    A key is taken by one worker, whoever else asks at the same instant. It connects when it is
    first needed, and again after an outage; each worker has one connection. Workers tell the time
    of a key by their own clocks, which must agree. Needs `pip install 'wshub[nats]'`.

    Args:
        url: As of `NatsBackend`.
        prefix: Begins the name of the stream, `wshub-once`, which is made if it is not there: it
            keeps a million keys at most, in memory and for an hour, which is the longest `ttl`.
            Its subjects are `wshub.once.…`. Needs the right to these, and to
            `$JS.API.STREAM.INFO`, `CREATE`, `MSG.GET` and `MSG.DELETE` of the stream.
        timeout: Seconds that the server has for an answer.
        options: Of nats-py, as `NatsBackend` takes them.

    Raises:
        ValueError: The URL or an option cannot be read, or `timeout` is not positive.
        ImportError: nats-py is missing.
    """

    def __init__(
        self,
        url: str = "nats://localhost:4222",
        *,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        options: Mapping[str, object] | None = None,
    ) -> None:
        with needing("NatsOneTimeKeys", "nats"):
            from wshub.backends._nats_store import KEPT, NatsStore  # noqa: PLC0415  (an extra)

        store = NatsStore(read_url(url, options or {}), prefix)
        super().__init__(store, prefix, timeout, max_ttl=KEPT)
