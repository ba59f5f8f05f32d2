"""What went wrong with a server, in words."""

from __future__ import annotations

from typing import cast

__all__ = ("NO_ANSWER", "describe", "find_first")

NO_ANSWER = "the server does not answer"


def describe(error: Exception) -> str:
    """Return what to say of an error."""
    return str(error) or (NO_ANSWER if isinstance(error, TimeoutError) else repr(error))


def find_first(error: Exception) -> Exception:
    """Return the first error of a task group's exception group, or the error itself."""
    if isinstance(error, ExceptionGroup):
        return find_first(cast("ExceptionGroup[Exception]", error).exceptions[0])
    return error
