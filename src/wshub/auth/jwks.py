"""The public keys of whoever issues tokens, fetched and kept."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from anyio.to_thread import run_sync

from wshub.auth.credential import InvalidCredential
from wshub.auth.pyjwt import import_pyjwt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPMessage, HTTPResponse
    from typing import IO
    from urllib.request import Request

    from jwt import PyJWK

__all__ = ("KeySet",)

_logger = logging.getLogger("wshub")

MAX_BYTES = 256 * 1024
"""Bytes of the longest key set that is read."""

MAX_KEYS = 100
"""Keys of the largest set that is taken."""


class KeySet:
    """
    A JSON Web Key Set, from a URL or at hand.

    One from a URL is fetched in a thread when it is first needed, and again when it is old or a
    token names a key that it lacks, but only now and then: tokens come from strangers. Meanwhile,
    and while it cannot be fetched, the keys at hand stay good; only who needs another one waits.

    Args:
        source: Its URL, `https://` (or `http://` of this machine), or the set itself.
        lifetime: Seconds after which it is fetched again.
        interval: Seconds between two fetches at least.
        timeout: Seconds that one fetch may take.

    Raises:
        ImportError: PyJWT is missing.
        ValueError: The URL is neither, a number is not positive, or the set has no usable key.
    """

    def __init__(
        self,
        source: str | Mapping[str, object],
        *,
        lifetime: float = 3600.0,
        interval: float = 30.0,
        timeout: float = 5.0,
    ) -> None:
        import_pyjwt()
        for name, value in (("lifetime", lifetime), ("interval", interval), ("timeout", timeout)):
            if not value > 0:
                raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")
        self._lifetime = lifetime
        self._interval = interval
        self._timeout = timeout
        self._keys: dict[str | None, _Key] = {}
        self._url: str | None = None
        self._fetched_at = self._tried_at = -float("inf")
        self._fetching: asyncio.Task[None] | None = None
        if isinstance(source, str):
            self._url = _check_url(source)
        else:
            self._keys = _read_keys(source)

    async def find(self, header: Mapping[str, object]) -> PyJWK:
        """
        Return the key that the header of a token names, for PyJWT.

        May be cancelled; a fetch that others wait for goes on.

        Raises:
            InvalidCredential: There is no such key.
        """
        kid = header.get("kid")
        key = self._look_up(kid)
        if self._url is not None and (key is None or self._is_old):
            fetching = self._fetch(self._url)
            if key is None and fetching is not None:
                await asyncio.wait({fetching})
                key = self._look_up(kid)
        if key is None:
            raise InvalidCredential("no key of the key set is the one that it names")
        return key.made_for(header.get("alg"))

    def _look_up(self, kid: object) -> _Key | None:
        if isinstance(kid, str):
            return self._keys.get(kid)
        only = list(self._keys.values())
        return only[0] if kid is None and len(only) == 1 else None

    @property
    def _is_old(self) -> bool:
        return monotonic() - self._fetched_at >= self._lifetime

    def _fetch(self, url: str) -> asyncio.Task[None] | None:
        """Return the fetch under way, begun if need be; None: the last one is too fresh."""
        if self._fetching is None and monotonic() - self._tried_at >= self._interval:
            self._tried_at = monotonic()
            self._fetching = asyncio.create_task(self._refresh(url), name="wshub key set")
        return self._fetching

    async def _refresh(self, url: str) -> None:
        try:
            async with asyncio.timeout(2 * self._timeout):  # names are looked up without one
                text = await run_sync(_download, url, self._timeout, abandon_on_cancel=True)
            self._keys = _read_keys(json.loads(text))
            self._fetched_at = monotonic()
        except Exception as error:  # whatever its host does, tokens are only refused
            _logger.warning("the key set %s cannot be had: %r", url, error)
        finally:
            self._fetching = None


class _Key:
    """A key of a set, and what the set says of it."""

    def __init__(self, member: Mapping[str, object]) -> None:
        self._make = partial(import_pyjwt().PyJWK, member)
        self._says_algorithm = member.get("alg") is not None
        self.pyjwk: PyJWK = self._make()

    @property
    def problem(self) -> str | None:
        """Why nothing should be signed with it."""
        problem: str | None = self.pyjwk.Algorithm.check_key_length(self.pyjwk.key)
        return problem

    def made_for(self, algorithm: object) -> PyJWK:
        """Return it for `algorithm`, if the set leaves that open: PyJWT would choose one."""
        if self._says_algorithm or algorithm == self.pyjwk.algorithm_name:
            return self.pyjwk
        try:
            bound: PyJWK = self._make(str(algorithm))
        except (import_pyjwt().PyJWTError, NotImplementedError) as error:
            problem = f"its algorithm does not fit the key: {type(error).__name__}"
            raise InvalidCredential(problem) from None
        return bound


class _NoRedirects(HTTPRedirectHandler):
    """What is not where it should be is nowhere: a redirect may lead to a place without TLS."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow nothing; the answer then is an error."""


def _download(url: str, timeout: float) -> bytes:
    end = monotonic() + timeout
    parts: list[bytes] = []
    size = 0
    with _open(url, timeout) as answer:
        while part := answer.read1(65536):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise ValueError(f"it is over {MAX_BYTES} bytes long")
            if monotonic() > end:
                raise TimeoutError(f"it took over {timeout:g} seconds")
    return b"".join(parts)


def _open(url: str, timeout: float) -> HTTPResponse:
    try:
        return cast("HTTPResponse", build_opener(_NoRedirects).open(url, timeout=timeout))
    except HTTPError as error:
        error.close()  # it is the answer, too
        raise ValueError(f"its host answered {error.code}") from None


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    is_here = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_here):
        raise ValueError(f"keys come over https:// alone, not from {url!r}")
    return url


def _read_keys(source: Mapping[str, object]) -> dict[str | None, _Key]:
    pyjwt = import_pyjwt()
    members: Any = source.get("keys")
    if not isinstance(members, list) or len(cast("list[object]", members)) > MAX_KEYS:
        raise ValueError("a key set is an object with a list of keys")
    keys: dict[str | None, _Key] = {}
    problems: list[str] = []
    for member in cast("list[Mapping[str, object]]", members):
        try:
            key = _Key(member)
        except (pyjwt.PyJWTError, AttributeError) as error:  # of a kind that PyJWT does not know
            problems.append(type(error).__name__)
            continue
        if key.problem is not None:
            problems.append(key.problem)
        elif key.pyjwk.public_key_use in {None, "sig"}:
            keys[key.pyjwk.key_id] = key
    if not keys:
        raise ValueError(f"the key set has no usable key: {'; '.join(problems) or 'none signs'}")
    return keys
