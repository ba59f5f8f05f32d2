"""A credential that is worth nothing, and how verifiers are asked."""

from __future__ import annotations

from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, cast

from starlette.concurrency import run_in_threadpool

from wshub.exceptions import CloseCode, HubError, Rejection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from wshub.auth.principal import Principal
    from wshub.auth.source import Verifier

__all__ = ("InvalidCredential", "ask")


class InvalidCredential(HubError, Rejection):
    """
    Raised by a verifier for a credential that is worth nothing.

    Its client learns only whether it has expired; the problem goes to the log. It is also a
    `Rejection`: where nobody catches it, say when a client sends a new token, the client is
    closed with 3000.

    Attributes:
        problem: What is wrong with it. Never put the credential, or a part of it, in here.
        expired: Whether it was good once, so that the client should fetch another.
    """

    def __init__(self, problem: str, *, expired: bool = False) -> None:
        reason = "token expired" if expired else "invalid credential"
        super().__init__(CloseCode.UNAUTHORIZED, reason)
        self.problem = problem
        self.expired = expired

    def __str__(self) -> str:
        return f"invalid credential: {self.problem}"


async def ask(verify: Verifier, value: str) -> Principal | None:
    """Return what `verify` says of `value`: in the event loop, or in a thread if it may block."""
    if iscoroutinefunction(verify) or iscoroutinefunction(getattr(verify, "__call__", None)):  # noqa: B004  (which kind of call it is)
        return await cast("Callable[[str], Awaitable[Principal | None]]", verify)(value)
    answer = await run_in_threadpool(verify, value)
    return await answer if isawaitable(answer) else answer
