"""Who may listen to what, and say it, over the websockets of the chat demo."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest

from chatserver.views import TYPING

LISTENING = {"subscribe-broadcast", "subscribe-group", "subscribe-user", "subscribe-session"}
TO_ONESELF = {"publish-user", "publish-session"}
TO_OTHERS = {"publish-broadcast", "publish-group"}


def allowed_channels(request: HttpRequest, channels: Sequence[str]) -> list[str]:
    """Messages go through the views. Over websockets, users (not guests) say only that they are
    typing. A group is for its members: the server sees to that.
    """
    allowed = LISTENING | TO_ONESELF
    if request.path_info == f"/ws/{TYPING}" and request.user.is_authenticated:
        allowed = allowed | TO_OTHERS
    return [channel for channel in channels if channel in allowed]
