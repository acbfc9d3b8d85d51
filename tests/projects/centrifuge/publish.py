"""``python -m tests.projects.centrifuge.publish CHANNEL DATA``: publishes as a Django site does."""

from __future__ import annotations

import sys

import django

django.setup()

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.redis_store import RedisMessage

if __name__ == "__main__":
    channel, data = sys.argv[1:]
    facility = channel.removeprefix("broadcast:")
    RedisPublisher(facility=facility, broadcast=True).publish_message(RedisMessage(data))
