"""Pages that publish."""

from __future__ import annotations

import asyncio
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpResponse

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher


def publisher(**audience: Any) -> Any:
    return RedisPublisher(**{"facility": "orders", **audience})


def answer() -> Any:
    return HttpResponse("<!doctype html><title>Orders</title><body>Orders</body>")


def order(request: Any) -> Any:
    """One message of each kind."""
    publisher(broadcast=True).publish_message('{"order": 7, "state": "paid"}')
    publisher(users=["mary"], groups=["packers"]).publish_message("pack order 7")
    publisher(users=[]).publish_message("nobody is on duty")
    with transaction.atomic():
        publisher(groups=["accounts"]).publish_message("invoice of order 7", on_commit=True)
    with transaction.atomic():
        publisher(users=["mary"]).publish_message("a mistake", on_commit=True)
        transaction.set_rollback(True)
    return answer()


def later(request: Any) -> Any:
    publisher(broadcast=True).publish_message("committed later", on_commit=True)
    with transaction.atomic():
        publisher(users=["mary"]).publish_message("of a savepoint", on_commit=True)
        transaction.set_rollback(True)
    return answer()


def strange(request: Any) -> Any:
    publisher(facility="<b>&", users=["<script>alert(1)</script>"]).publish_message("hello")
    publisher(sessions=["k" * 32]).publish_message("hello")
    return answer()


async def orders(request: Any) -> Any:
    """Concurrent messages, and one of a thread."""
    facility = request.GET["facility"]
    await publisher(facility=facility, broadcast=True).apublish_message("awaited")
    await asyncio.gather(
        *(publisher(facility=facility, users=[name]).apublish_message("hi") for name in "ab")
    )
    await sync_to_async(publisher(facility=facility, groups=["g"]).publish_message)("of a thread")
    return answer()


def survived(request: Any) -> Any:
    try:
        publisher(broadcast=True).publish_message("hello")
    except BrokerUnavailable:
        return answer()


def nothing(request: Any) -> Any:
    return answer()
