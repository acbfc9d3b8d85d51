"""Django's signals about websockets. Sent by the process that serves them.

They are sent in a worker thread: the ORM is welcome, and no websocket waits for a receiver. Those
of one websocket come in their order; ``connection`` is the same object in each, and can be a key.

- ``client_connected(connection)``: a websocket is open.
- ``message_received(connection, message)``: a client sent ``message``, bytes. It is published all
  the same, before the receiver is called or after. To have a say in that, use ``IHooks``.
- ``client_disconnected(connection, closing)``: it is over; ``closing`` has code, reason and counts.

``connection`` is a ``ws4redis_tx.service.IConnection``: it knows ``facility`` and ``identity``, and
its ``send`` and ``close`` may be called here.

Connect receivers in ``AppConfig.ready``: what opened while nobody was connected is not told of.
Receivers that are too slow miss some: at most 10,000 events wait for them, of which half, and
16 MiB, may be messages; the log says how many were dropped.
"""

from __future__ import annotations

from django.dispatch import Signal

__all__ = ["client_connected", "client_disconnected", "message_received"]

client_connected = Signal()
client_disconnected = Signal()
message_received = Signal()
