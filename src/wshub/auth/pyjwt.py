"""PyJWT, an extra that is imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ("import_pyjwt",)


def import_pyjwt() -> ModuleType:
    """
    Return the module `jwt`.

    Raises:
        ImportError: It is missing; names the extra.
    """
    try:
        return import_module("jwt")
    except ImportError as error:
        raise ImportError(
            "JSON Web Tokens need PyJWT: pip install 'wshub[jwt]'", name="jwt"
        ) from error
