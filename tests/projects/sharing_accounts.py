"""For a process of its own: visitors of a site whose user model has no groups."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db.backends.utils import CursorWrapper
from django.test import Client
from twisted.internet.task import Clock

from tests.support.wires import handshake_bytes
from ws4redis_tx.core.handshake import judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.visitors import Visitor


def check() -> str:
    """Say whether visitors are told the same together and alone, and how many queries it takes."""
    visitors: list[list[Visitor]] = [[], []]
    for number in range(5):
        model: Any = get_user_model()
        user, _ = model.objects.get_or_create(email=f"{number}@example.com")
        client = Client()
        client.force_login(user)
        data = handshake_bytes(Cookie=f"sessionid={client.cookies['sessionid'].value}")
        request = read_request(data.removesuffix(b"\r\n\r\n"))
        handshake = judge_request(request, "/ws/", secure=False, peer="127.0.0.1")
        for each in visitors:
            each.append(Visitor(handshake, ("subscribe-user",)))
    authorizer = DjangoAuthorizer(Clock())
    alone = [authorizer._authorize(each).identity for each in visitors[0]]
    queries = []
    execute = CursorWrapper.execute
    CursorWrapper.execute = lambda *given: (queries.append(given[1]), execute(*given))[1]  # type: ignore
    authorizer._fetch([(each,) for each in visitors[1]])
    together = [authorizer._authorize(each).identity for each in visitors[1]]
    names = [each.username for each in together]
    same = alone == together and names == [f"{number}@example.com" for number in range(5)]
    return f"{same} {len(queries)}"
