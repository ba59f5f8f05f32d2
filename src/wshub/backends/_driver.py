"""The packages that talk to a broker: extras, imported when a backend is made."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("needing",)


@contextmanager
def needing(backend: str, extra: str) -> Generator[None, None, None]:
    """Say what to install if an import in this block fails. Raises ImportError."""
    try:
        yield
    except ImportError as error:
        package = (error.name or extra).partition(".")[0]
        raise ImportError(
            f"{backend} needs {package}; pip install 'wshub[{extra}]'", name=package
        ) from error
