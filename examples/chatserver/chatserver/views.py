"""The pages of the chat demo.

This module decides who may write to whom, and publishes messages. A browser sends its messages by
an ordinary POST and receives them over a websocket, so this is plain Django: nothing here is
asynchronous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import reverse
from django.views.generic import TemplateView

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.redis_store import RedisMessage

FACILITY = "foobar"
TYPING = "typing"  # the facility on which clients say that they are typing
GUEST = "guest"
LONGEST_MESSAGE = 2000  # characters


class Refused(Exception):
    """A message was not published. The text of the exception is a sentence for its author."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class IndexPage(TemplateView):
    """The index: the visitor's name and the conversations, or the login form."""

    template_name = "chat/index.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(form=AuthenticationForm(self.request), **kwargs)


class ChatPage(TemplateView):
    """One conversation: GET shows it, POST publishes the field ``message``.

    A script, which accepts JSON but not HTML, gets ``{"receivers": n}`` or
    ``{"error": sentence}``. A plain form is redirected to the page, or gets the page with the
    sentence on it. The statuses are the same for both.
    """

    template_name = "chat/chat.html"
    audience: ClassVar[str]
    recipient_field: ClassVar[str] = ""  # the name of the select element, if there is one

    def recipients(self) -> list[str]:
        """The options of the select element, in order."""
        return []

    def publisher_options(self, recipient: str) -> Mapping[str, Any]:
        """The audience, as keyword arguments of the publisher. Raises ``Refused``."""
        raise NotImplementedError

    def post(self, request: HttpRequest) -> HttpResponse:
        wants_json = not request.accepts("text/html")
        try:
            receivers = self.publish(
                request.POST.get("message", "").strip(),
                request.POST.get(self.recipient_field, "") if self.recipient_field else "",
            )
        except Refused as refused:
            if wants_json:
                return JsonResponse({"error": str(refused)}, status=refused.status)
            return self.render_to_response(
                self.get_context_data(error=str(refused)), status=refused.status
            )
        if wants_json:
            return JsonResponse({"receivers": receivers})
        return HttpResponseRedirect(request.path)

    def publish(self, text: str, recipient: str) -> int:
        """Return the number of server processes that received it. Raises ``Refused``."""
        if not text:
            raise Refused(HTTPStatus.BAD_REQUEST, "Write something first.")
        if len(text) > LONGEST_MESSAGE:
            raise Refused(HTTPStatus.BAD_REQUEST, f"At most {LONGEST_MESSAGE} characters, please.")
        options = self.publisher_options(recipient)
        try:
            publisher = RedisPublisher(facility=FACILITY, **options)
            return publisher.publish_message(RedisMessage(f"{self.author()}: {text}"))
        except BrokerUnavailable as error:
            fate = (
                "Your message may or may not have been sent."
                if error.maybe_published
                else "Your message was not sent; try again in a moment."
            )
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The message broker does not answer. {fate}"
            ) from error

    def author(self) -> str:
        return self.request.user.get_username() or GUEST

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            audience=self.audience,
            author=self.author(),
            facility=FACILITY,
            guest=GUEST,
            longest_message=LONGEST_MESSAGE,
            recipient_field=self.recipient_field,
            recipients=self.recipients(),
            recipient=self.request.POST.get(self.recipient_field, ""),
            draft=self.request.POST.get("message", ""),
            **kwargs,
        )


class BroadcastPage(ChatPage):
    """Messages from everybody to everybody, logged in or not."""

    audience = "broadcast"

    def publisher_options(self, recipient: str) -> Mapping[str, Any]:
        return {"broadcast": True}


class UserPage(LoginRequiredMixin, ChatPage):
    """Messages to one user, in every browser where that user is logged in."""

    audience = "user"
    recipient_field = "user"

    def recipients(self) -> list[str]:
        """All users, with the visitor last."""
        users = get_user_model().objects.filter(is_active=True)
        names = users.order_by("username").values_list("username", flat=True)
        return sorted(names, key=lambda name: name == self.author())

    def publisher_options(self, recipient: str) -> Mapping[str, Any]:
        if recipient not in self.recipients():
            raise Refused(HTTPStatus.BAD_REQUEST, "There is no user with that name.")
        return {"users": [recipient]}


class GroupPage(LoginRequiredMixin, ChatPage):
    """Messages from a member of a group to all of its members."""

    audience = "group"
    recipient_field = "group"

    def recipients(self) -> list[str]:
        return list(self.request.user.groups.order_by("name").values_list("name", flat=True))

    def publisher_options(self, recipient: str) -> Mapping[str, Any]:
        if recipient not in self.recipients():
            raise Refused(HTTPStatus.FORBIDDEN, "You are not a member of that group.")
        return {"groups": [recipient]}


@dataclass(frozen=True, slots=True)
class Room:
    """A conversation on the page of rooms.

    ``channel`` is its name in Centrifuge's protocol, and ``typing`` that of the channel where
    others say that they are typing. ``url`` takes the message by POST, with ``recipient`` in
    ``field``.
    """

    title: str
    channel: str
    url: str
    field: str = ""
    recipient: str = ""
    typing: str = ""


class RoomsPage(TemplateView):
    """All conversations of a visitor, over one connection. The other pages take the messages."""

    template_name = "chat/rooms.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        user = self.request.user
        others = get_user_model().objects.filter(is_active=True).exclude(pk=user.pk)
        return super().get_context_data(
            author=user.get_username() or GUEST,
            guest=GUEST,
            has_library=finders.find("centrifuge/centrifuge.js") is not None,
            longest_message=LONGEST_MESSAGE,
            recipients=others.order_by("username").values_list("username", flat=True),
            rooms=self.rooms(),
            **kwargs,
        )

    def rooms(self) -> list[Room]:
        everybody = Room(
            "Everybody", f"broadcast:{FACILITY}", reverse("broadcast"), typing=f"broadcast:{TYPING}"
        )
        user = self.request.user
        if not user.is_authenticated:
            return [everybody]
        groups = [
            Room(
                name,
                f"group:{name}:{FACILITY}",
                reverse("group"),
                GroupPage.recipient_field,
                name,
                f"group:{name}:{TYPING}",
            )
            for name in user.groups.order_by("name").values_list("name", flat=True)
        ]
        direct = Room("Direct", f"user:{FACILITY}", reverse("user"), UserPage.recipient_field)
        return [everybody, *groups, direct]
