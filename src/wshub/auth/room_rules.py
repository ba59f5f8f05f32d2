"""Who may do something in which rooms."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias

from wshub.auth.principal import Principal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("RoomRule", "RoomRules", "anyone", "with_scopes")

RoomRule: TypeAlias = Callable[[Principal | None, str], bool | Awaitable[bool]]
"""Says whether a principal, or None for a stranger, may do it in the room of that name."""


class RoomRules:
    """
    Rules for rooms by their names, for `authorize_join` and `authorize_publish`.

    The first pattern that fits decides; where none does, nobody may.

    Args:
        rules: Patterns and rules, in order: `{"lobby": anyone, "team:*": with_scopes("team")}`.
            In a pattern `*` is anything, `?` one character and `[ab]` one of these.
    """

    def __init__(self, rules: Mapping[str, RoomRule]) -> None:
        self._rules = dict(rules)

    async def __call__(self, principal: Principal | None, room: str) -> bool:
        """Say whether `principal` may do it in `room`."""
        for pattern, rule in self._rules.items():
            if fnmatchcase(room, pattern):
                allowed = rule(principal, room)
                return (await allowed if isawaitable(allowed) else allowed) is True
        return False


def anyone(principal: Principal | None, room: str) -> bool:  # noqa: ARG001  (it is a rule)
    """Let everyone, strangers included."""
    return True


def with_scopes(*scopes: str) -> RoomRule:
    """Build a rule that lets those who have all of `scopes`; none means anyone with a log-in."""

    def check(principal: Principal | None, room: str) -> bool:  # noqa: ARG001  (it is a rule)
        return principal is not None and principal.has_scopes(scopes)

    return check
