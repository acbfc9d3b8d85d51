"""The task, and what it tells. Here it runs in a thread, so that no other program is needed;
in Celery, or any other queue, it would be the same function.

A message says only that something has changed, and the pages fetch how things are now. So it does
no harm to get one twice, or late, or after one that was published later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection

from exports.models import Export, Notification
from ws4redis_tx.publisher import RedisPublisher

STEP = 5  # percent


def tell(user: Any) -> None:
    """Tell all tabs of a user to fetch what has changed, when that is committed."""
    publisher = RedisPublisher(facility="exports", users=[user])
    publisher.publish_message("changed", on_commit=True)


def shown_to(user: Any) -> dict[str, Any]:
    """Everything on the page that changes."""
    return {
        "exports": user.exports.all()[:8],
        "notifications": user.notifications.all()[:5],
        "unread": user.notifications.filter(read=False).count(),
    }


def run_export(pk: int, pause: Callable[[float], None] = time.sleep) -> None:
    export = Export.objects.select_related("user").get(pk=pk)
    while export.percent < 100:
        pause(settings.EXPORT_SECONDS * STEP / 100)
        export.percent += STEP
        export.save(update_fields=["percent"])
        tell(export.user)
    Notification.objects.create(user=export.user, text=f"{export.title} is ready.")
    tell(export.user)


def start_export(export: Export) -> None:
    def work() -> None:
        try:
            run_export(export.pk)
        finally:
            connection.close()

    threading.Thread(target=work, daemon=True).start()
