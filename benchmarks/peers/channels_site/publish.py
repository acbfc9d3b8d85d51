"""Publishes each line of standard input to the group ``load``, in order, as a view would."""

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["DJANGO_SETTINGS_MODULE"] = "channels_site.settings"

from channels.layers import get_channel_layer


async def main():
    layer = get_channel_layer()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await layer.group_send("load", {"type": "published", "text": line.rstrip("\n")})


asyncio.run(main())
