"""``examples/notifications`` with steps in an unlucky order.

``python -m tests.projects.late_exports STORY``: just before one message is published, something
else happens to the end, as if its thread had been interrupted there. Prints as JSON what a page
shows that has heard all messages in the order in which they were published: the percentage of each
export, and the number of unread notifications.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import django
from exports.prepare import prepare


class Page:
    """What htmx does with ``index.html``: it puts in what it hears, or fetches."""

    def __init__(self, client: Any) -> None:
        self._client = client
        html = self._get("/")
        self._fetches = "sse:message" in html
        self.percents: dict[str, int] = {}
        self.unread = 0
        self._take(html)

    def hear(self, message: str) -> None:
        self._take(self._get("/live/") if self._fetches else message)

    def _get(self, path: str) -> str:
        response = self._client.get(path)
        assert response.status_code == 200, response
        return str(response.content.decode())

    def _take(self, html: str) -> None:
        for percent, title in re.findall(r'max="100" value="(\d+)" aria-label="(.+?)"', html):
            self.percents[title] = int(percent)
        if 'id="notifications"' in html:
            found = re.search(r'class="unread">(\d+)', html)
            self.unread = int(found[1]) if found else 0


def main(story: str) -> None:
    prepare()
    from django.contrib.auth.models import User
    from django.test import Client
    from exports import tasks
    from exports.models import Export

    from ws4redis_tx.publisher import RedisPublisher

    john = User.objects.get(username="john")
    started = john.exports.create(title="Stock by warehouse", percent=95)
    client = Client(HTTP_HOST="127.0.0.1")
    client.force_login(john)
    page = Page(client)
    published = 0
    interruptions: dict[int, Callable[[], object]] = {}

    def publish(self: RedisPublisher, message: str, **how: Any) -> None:
        nonlocal published
        published += 1
        interruptions.pop(published, int)()
        page.hear(message)

    def end(export: Export) -> None:
        tasks.run_export(export.pk, lambda seconds: None)

    RedisPublisher.publish_message = publish  # type: ignore[assignment,method-assign]
    tasks.start_export = lambda export: None
    if story == "ended-while-another-starts":
        interruptions[1] = lambda: end(started)
        client.post("/start/", {"title": "All customers"})
    elif story == "read-while-it-is-told":
        # The first message tells of 100 %, the second one of the notification.
        interruptions[2] = lambda: client.post("/read/")
        end(started)
    assert published > 1 and not interruptions
    print(json.dumps({"percents": page.percents, "unread": page.unread}))


if __name__ == "__main__":
    django.setup()
    main(*sys.argv[1:])
