"""Views of a Django site that publish; ``test_orders`` tests them."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import SELF, RedisPublisher


def ship(request: HttpRequest) -> HttpResponse:
    """Notify the customer, in every window, and the staff."""
    order = request.GET["order"]
    customer = RedisPublisher(facility="orders", users=[SELF], request=request)
    staff = RedisPublisher(facility="orders", groups=["staff"])
    try:
        customer.publish_message("Your order is on its way.")
        staff.publish_message(json.dumps({"order": order, "state": "shipped"}), expire=0)
    except BrokerUnavailable:
        return HttpResponse("shipped, but not everybody knows")
    return HttpResponse("shipped")


def last_news(request: HttpRequest) -> HttpResponse:
    """For a page without websockets."""
    return HttpResponse(RedisPublisher().fetch_message(request, "orders", "user") or b"no news")


async def cancel(request: HttpRequest) -> HttpResponse:
    everybody = RedisPublisher(facility="orders", broadcast=True)
    await everybody.apublish_message("An order was cancelled.")
    return HttpResponse("cancelled")
