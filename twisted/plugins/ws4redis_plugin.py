"""Tells ``twistd`` about the ``ws4redis`` command."""

from twisted.application.service import ServiceMaker

ws4redis = ServiceMaker(
    "ws4redis",
    "ws4redis_tx.tap",
    "Serve websockets that receive what Django publishes through Redis.",
    "ws4redis",
)
