"""The task, and what it tells. Here it runs in a thread, so that no other program is needed;
in Celery, or any other queue, it would be the same function.

Each message is HTML that htmx puts in the place of the element with the same id. It says how things
are, and not what has changed: to get it twice, or late, does no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection
from django.template.loader import render_to_string

from exports.models import Export, Notification
from ws4redis_tx.publisher import RedisPublisher

STEP = 5  # percent


def tell(user: Any, template: str, **context: Any) -> None:
    """Send a part of the page to all tabs of a user."""
    html = render_to_string(f"exports/{template}", {**context, "replaces": True})
    RedisPublisher(facility="exports", users=[user.get_username()]).publish_message(html)


def tell_exports(user: Any) -> None:
    tell(user, "exports.html", exports=user.exports.all()[:8])


def tell_notifications(user: Any) -> None:
    tell(user, "notifications.html", **notifications_of(user))


def notifications_of(user: Any) -> dict[str, Any]:
    return {
        "notifications": user.notifications.all()[:5],
        "unread": user.notifications.filter(read=False).count(),
    }


def run_export(pk: int, pause: Callable[[float], None] = time.sleep) -> None:
    export = Export.objects.select_related("user").get(pk=pk)
    while export.percent < 100:
        pause(settings.EXPORT_SECONDS * STEP / 100)
        export.percent += STEP
        export.save(update_fields=["percent"])
        tell(export.user, "export.html", export=export)
    Notification.objects.create(user=export.user, text=f"{export.title} is ready.")
    tell_notifications(export.user)


def start_export(export: Export) -> None:
    def work() -> None:
        try:
            run_export(export.pk)
        finally:
            connection.close()

    threading.Thread(target=work, daemon=True).start()
