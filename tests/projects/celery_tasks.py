"""A Celery application whose tasks publish. Its queue is a folder, so it needs no server."""

from __future__ import annotations

import os

from celery import Celery

FOLDER = os.environ["CELERY_FOLDER"]

app = Celery("tests.projects.celery_tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": FOLDER,
    "data_folder_out": FOLDER,
    "control_folder": FOLDER,
}

import django

django.setup()


@app.task
def publish(text: str) -> int:
    from ws4redis_tx.publisher import RedisPublisher

    return RedisPublisher(facility="served", broadcast=True).publish_message(text)
