"""What those behind connections may do in rooms."""

from __future__ import annotations

import logging
from inspect import isawaitable
from typing import TYPE_CHECKING

from wshub._names import check_room_name
from wshub.exceptions import AccessDenied

if TYPE_CHECKING:
    from wshub.auth.principal import Principal
    from wshub.auth.room_rules import RoomRule
    from wshub.exceptions import RoomAction

__all__ = ("Authorization",)

logger = logging.getLogger("wshub")


class Authorization:
    """
    Asks the app's rules; anything but True is a no.

    Without a rule for joining the app itself decides whom it lets join, as in the tutorial;
    without one for publishing nobody publishes but the app itself.
    """

    __slots__ = ("_rules",)

    def __init__(self, *, join: RoomRule | None, publish: RoomRule | None) -> None:
        self._rules: dict[RoomAction, RoomRule | None] = {"join": join, "publish": publish}

    async def check(self, action: RoomAction, principal: Principal | None, room: str) -> None:
        """
        Raise unless `principal` may do `action` in `room`.

        Raises:
            AccessDenied: It may not.
            InvalidRoomName: Nobody may, with such a name.
        """
        check_room_name(room)
        rule = self._rules[action]
        if rule is None:
            allowed: object = action == "join"
        else:
            answer = rule(principal, room)
            allowed = await answer if isawaitable(answer) else answer
        if allowed is not True:
            who = "a stranger" if principal is None else f"user {principal.user!a}"
            logger.info("%s may not %s room %a", who, action, room)
            raise AccessDenied(action, room)
