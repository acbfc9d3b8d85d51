"""For a process of its own: visitors of a site with a user model of its own."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.backends.utils import CursorWrapper
from django.test import Client
from twisted.internet.task import Clock

from tests.projects.accounts.models import Person
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.handshake import judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.visitors import Visitor


def check() -> str:
    """Say whether visitors are told the same together and alone, and how many queries it takes."""
    visitors: list[list[Visitor]] = [[], []]
    model: Any = get_user_model()
    if hasattr(model, "groups"):
        strangers, _ = Group.objects.get_or_create(name="strangers")
        for number in range(5):  # with the primary keys that visitors' own table will have
            Person.objects.get_or_create(username=str(number))[0].groups.add(strangers)
    for number in range(5):
        user, _ = model.objects.get_or_create(**{model.USERNAME_FIELD: f"{number}@example.com"})
        if hasattr(user, "groups"):
            user.groups.add(Group.objects.get_or_create(name=f"group {number}")[0])
        client = Client()
        client.force_login(user)
        data = handshake_bytes(Cookie=f"sessionid={client.cookies['sessionid'].value}")
        request = read_request(data.removesuffix(b"\r\n\r\n"))
        handshake = judge_request(request, "/ws/", secure=False, peer="127.0.0.1")
        for each in visitors:
            each.append(Visitor(handshake, ("subscribe-group",)))
    authorizer = DjangoAuthorizer(Clock())
    alone = [authorizer._authorize(each).identity for each in visitors[0]]
    queries = []
    execute = CursorWrapper.execute
    CursorWrapper.execute = lambda *given: (queries.append(given[1]), execute(*given))[1]  # type: ignore
    waiting = visitors[1]
    authorizer._waiting = lambda: waiting  # type: ignore[method-assign]
    together = [authorizer._authorize(waiting.pop(0)).identity for _ in range(5)]
    names = [each.username for each in together]
    same = alone == together and names == [f"{number}@example.com" for number in range(5)]
    same = same and all("strangers" not in each.groups for each in together)
    return f"{same} {len(queries)}"
