"""Dependencies that only those who test need."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("needing",)


@contextmanager
def needing(requirement: str) -> Generator[None, None, None]:
    """Say what to install if an import in this block fails. Raises ImportError."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"this part of wshub.testing needs {error.name}; pip install '{requirement}'",
            name=error.name,
        ) from error
