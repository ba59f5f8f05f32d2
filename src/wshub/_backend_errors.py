"""Errors of what connects workers."""

from __future__ import annotations

from wshub._hub_error import HubError

__all__ = ("BackendRefused", "BackendUnavailable", "PayloadTooLarge")


class BackendUnavailable(HubError):
    """
    Raised by a backend that cannot take a message now.

    Attributes:
        backend: Name of the backend.
        problem: What it ran into.
        uncertain: False: nothing was published. True: the message was on its way when the
            server stopped answering, and nobody can tell whether it arrives.
    """

    def __init__(self, backend: str, problem: str, *, uncertain: bool = False) -> None:
        super().__init__(backend, problem)
        self.backend = backend
        self.problem = problem
        self.uncertain = uncertain

    def __str__(self) -> str:
        what = "does not know whether it has published" if self.uncertain else "cannot publish now"
        return f"{self.backend} {what}: {self.problem}; try again later"


class BackendRefused(BackendUnavailable):
    """
    Raised at the start by a backend whose server refuses its configuration.

    Attributes:
        backend: Name of the backend.
        problem: What the server refuses, and how to mend it.
    """

    def __str__(self) -> str:
        return f"{self.backend} cannot start: {self.problem}"


class PayloadTooLarge(HubError):
    """
    Raised by a backend for a message over its limit. Nothing was published.

    Attributes:
        size: Size of the message as it would travel, in bytes.
        limit: The backend's limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"a message of {self.size} bytes is over the backend's limit of {self.limit} bytes; "
            "send a reference to it instead"
        )
